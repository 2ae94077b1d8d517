#include "model/spec/logical_weights.h"

#include <algorithm>
#include <iterator>
#include <utility>
#include <variant>

namespace essor::model {
namespace {

class LayerLister {
 public:
  LayerLister(const ModelSpec& spec, uint32_t layer) : spec_(spec), layer_(layer) {}

  void Attention(const GroupedQueryAttention& attention) {
    const uint64_t hidden = spec_.hidden_size;
    const uint64_t head_dim = attention.head_dim;
    const uint64_t query = attention.num_heads * head_dim;
    const uint64_t key = attention.num_kv_heads * head_dim;
    Add(WeightRole::kAttentionNorm, 1, hidden);
    Add(WeightRole::kQuery, attention.output_gate ? 2 * query : query, hidden);
    Add(WeightRole::kKey, key, hidden);
    Add(WeightRole::kValue, key, hidden);
    if (attention.qkv_bias) {
      Add(WeightRole::kQueryBias, 1, query);
      Add(WeightRole::kKeyBias, 1, key);
      Add(WeightRole::kValueBias, 1, key);
    }
    if (attention.qk_norm == QkNorm::kPerHead) {
      Add(WeightRole::kQueryNorm, 1, head_dim);
      Add(WeightRole::kKeyNorm, 1, head_dim);
    } else if (attention.qk_norm == QkNorm::kFullWidth) {
      Add(WeightRole::kQueryNorm, 1, query);
      Add(WeightRole::kKeyNorm, 1, key);
    }
    if (attention.sinks) Add(WeightRole::kSinks, 1, attention.num_heads);
    Add(WeightRole::kOutput, hidden, query);
    if (attention.output_bias) Add(WeightRole::kOutputBias, 1, hidden);
  }

  void Attention(const LatentAttention& attention) {
    const uint64_t hidden = spec_.hidden_size;
    const uint64_t heads = attention.num_heads;
    Add(WeightRole::kAttentionNorm, 1, hidden);
    if (attention.q_lora_rank != 0) {
      Add(WeightRole::kQueryDown, attention.q_lora_rank, hidden);
      Add(WeightRole::kQueryDownNorm, 1, attention.q_lora_rank);
    }
    Add(WeightRole::kQuery, heads * attention.query_head_dim(),
        attention.q_lora_rank != 0 ? attention.q_lora_rank : hidden);
    Add(WeightRole::kLatentDown, attention.kv_lora_rank, hidden);
    Add(WeightRole::kRopeKey, attention.rope_head_dim, hidden);
    Add(WeightRole::kLatentNorm, 1, attention.kv_lora_rank);
    for (uint32_t head = 0; head < heads; ++head) {
      Add(WeightRole::kKeyUp, attention.kv_lora_rank, attention.nope_head_dim);
      weights_.back().head = static_cast<int32_t>(head);
      Add(WeightRole::kValueUp, attention.value_head_dim, attention.kv_lora_rank);
      weights_.back().head = static_cast<int32_t>(head);
    }
    Add(WeightRole::kOutput, hidden, heads * attention.value_head_dim);
    if (attention.indexer) Indexer(*attention.indexer, attention.q_lora_rank);
  }

  void Attention(const LightningAttention& attention) {
    const uint64_t hidden = spec_.hidden_size;
    const uint64_t width = uint64_t{attention.num_heads} * attention.head_dim;
    Add(WeightRole::kAttentionNorm, 1, hidden);
    Add(WeightRole::kLinearInput, 3 * width, hidden);
    Add(WeightRole::kOutputGate, width, hidden);
    Add(WeightRole::kLinearNorm, 1, width);
    Add(WeightRole::kOutput, hidden, width);
  }

  void Attention(const GatedDeltaNet& attention) {
    const uint64_t hidden = spec_.hidden_size;
    const uint64_t heads = attention.num_value_heads;
    const uint64_t key_width = uint64_t{attention.num_key_heads} * attention.key_head_dim;
    const uint64_t value_width = heads * attention.value_head_dim;
    Add(WeightRole::kAttentionNorm, 1, hidden);
    Add(WeightRole::kLinearInput, uint64_t{attention.num_key_heads} * attention.group_rows(),
        hidden);
    Add(WeightRole::kDeltaGates, 2 * heads, hidden);
    Add(WeightRole::kQueryFilter, key_width, attention.conv_taps);
    Add(WeightRole::kKeyFilter, key_width, attention.conv_taps);
    Add(WeightRole::kValueFilter, value_width, attention.conv_taps);
    Add(WeightRole::kDecayRate, 1, heads);
    Add(WeightRole::kDecayBias, 1, heads);
    Add(WeightRole::kLinearNorm, 1, attention.value_head_dim);
    Add(WeightRole::kOutput, hidden, value_width);
  }

  void PostNorms() {
    Add(WeightRole::kAttentionPostNorm, 1, spec_.hidden_size);
    Add(WeightRole::kFfnPostNorm, 1, spec_.hidden_size);
  }

  void Ffn(const DenseFfn& ffn) {
    Add(WeightRole::kFfnNorm, 1, spec_.hidden_size);
    GatedFfn(ffn.intermediate_size, -1);
  }

  void Ffn(const MoeFfn& ffn, uint32_t max_experts) {
    Add(WeightRole::kFfnNorm, 1, spec_.hidden_size);
    Add(WeightRole::kRouter, ffn.num_experts, spec_.hidden_size);
    if (ffn.router.correction_bias) Add(WeightRole::kRouterBias, 1, ffn.num_experts);
    if (ffn.router.logit_bias) Add(WeightRole::kRouterLogitBias, 1, ffn.num_experts);
    if (ffn.shared_intermediate_size > 0) GatedFfn(ffn.shared_intermediate_size, -1);
    if (ffn.shared_gate) Add(WeightRole::kSharedGate, 1, spec_.hidden_size);
    for (uint32_t expert = 0; expert < std::min(ffn.num_experts, max_experts); ++expert) {
      GatedFfn(ffn.intermediate_size, static_cast<int32_t>(expert));
      if (ffn.expert_bias) GatedFfnBiases(ffn.intermediate_size, static_cast<int32_t>(expert));
    }
  }

  // What stands around the layer proper.
  void BeforeDraft() {
    Add(WeightRole::kEmbedding, spec_.vocab_size, spec_.hidden_size);
    Add(WeightRole::kDraftEmbeddingNorm, 1, spec_.hidden_size);
    Add(WeightRole::kDraftHiddenNorm, 1, spec_.hidden_size);
    Add(WeightRole::kDraftInput, spec_.hidden_size, 2 * uint64_t{spec_.hidden_size});
  }
  void AfterDraft() {
    Add(WeightRole::kFinalNorm, 1, spec_.hidden_size);
    Add(WeightRole::kHead, spec_.vocab_size, spec_.hidden_size);
  }

  std::vector<WeightBinding> Take() { return std::move(weights_); }

 private:
  void Indexer(const SparseIndexer& indexer, uint64_t q_lora_rank) {
    const uint64_t head_dim = indexer.head_dim;
    Add(WeightRole::kIndexQuery, indexer.num_heads * head_dim, q_lora_rank);
    Add(WeightRole::kIndexKey, head_dim, spec_.hidden_size);
    Add(WeightRole::kIndexKeyNorm, 1, head_dim);
    Add(WeightRole::kIndexKeyNormBias, 1, head_dim);
    Add(WeightRole::kIndexWeights, indexer.num_heads, spec_.hidden_size);
  }

  void GatedFfn(uint64_t intermediate, int32_t expert) {
    Add(WeightRole::kGate, intermediate, spec_.hidden_size, expert);
    Add(WeightRole::kUp, intermediate, spec_.hidden_size, expert);
    Add(WeightRole::kDown, spec_.hidden_size, intermediate, expert);
  }

  void GatedFfnBiases(uint64_t intermediate, int32_t expert) {
    Add(WeightRole::kGateBias, 1, intermediate, expert);
    Add(WeightRole::kUpBias, 1, intermediate, expert);
    Add(WeightRole::kDownBias, 1, spec_.hidden_size, expert);
  }

  void Add(WeightRole role, uint64_t rows, uint64_t cols, int32_t expert = -1) {
    weights_.push_back({.role = role,
                        .layer = static_cast<int32_t>(layer_),
                        .expert = expert,
                        .rows = rows,
                        .cols = cols});
  }

  const ModelSpec& spec_;
  const uint32_t layer_;
  std::vector<WeightBinding> weights_;
};

WeightBinding Outer(WeightRole role, uint64_t rows, uint64_t cols) {
  return {.role = role, .rows = rows, .cols = cols};
}

}  // namespace

std::vector<WeightBinding> LayerWeights(const ModelSpec& spec, uint32_t layer,
                                        uint32_t max_experts) {
  LayerLister lister(spec, layer);
  const LayerSpec& parts = spec.LayerAt(layer);
  const bool draft = layer >= spec.layers.size();
  if (draft) lister.BeforeDraft();
  std::visit([&](const auto& attention) { lister.Attention(attention); }, parts.attention);
  if (parts.post_norms) lister.PostNorms();
  if (const auto* moe = std::get_if<MoeFfn>(&parts.ffn)) {
    lister.Ffn(*moe, max_experts);
  } else {
    lister.Ffn(std::get<DenseFfn>(parts.ffn));
  }
  if (draft) lister.AfterDraft();
  return lister.Take();
}

std::vector<WeightBinding> OuterWeights(const ModelSpec& spec) {
  std::vector<WeightBinding> weights = {
      Outer(WeightRole::kEmbedding, spec.vocab_size, spec.hidden_size),
      Outer(WeightRole::kFinalNorm, 1, spec.hidden_size),
  };
  if (!spec.tied_embeddings) {
    weights.push_back(Outer(WeightRole::kHead, spec.vocab_size, spec.hidden_size));
  }
  return weights;
}

std::vector<WeightBinding> LogicalWeights(const ModelSpec& spec) {
  const std::vector<WeightBinding> outer = OuterWeights(spec);
  std::vector<WeightBinding> weights = {outer.front()};
  const auto append_layers = [&](size_t begin, size_t end) {
    for (size_t layer = begin; layer < end; ++layer) {
      auto of_layer = LayerWeights(spec, static_cast<uint32_t>(layer));
      std::move(of_layer.begin(), of_layer.end(), std::back_inserter(weights));
    }
  };
  append_layers(0, spec.layers.size());
  weights.insert(weights.end(), outer.begin() + 1, outer.end());
  append_layers(spec.layers.size(), spec.NumLayersHeld());
  return weights;
}

}  // namespace essor::model
