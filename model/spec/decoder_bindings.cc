#include "model/spec/decoder_bindings.h"

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "model/spec/logical_weights.h"

namespace essor::model {
namespace {

// What follows "model.layers.N." (of an FFN's matrices also the FFN's name) for weights that all
// these decoders name alike; outside the layers the whole name.
const char* CommonName(WeightRole role) {
  switch (role) {
    case WeightRole::kEmbedding:
      return "model.embed_tokens.weight";
    case WeightRole::kFinalNorm:
      return "model.norm.weight";
    case WeightRole::kHead:
      return "lm_head.weight";
    case WeightRole::kAttentionNorm:
      return "input_layernorm.weight";
    case WeightRole::kQuery:
      return "self_attn.q_proj.weight";
    case WeightRole::kKey:
      return "self_attn.k_proj.weight";
    case WeightRole::kValue:
      return "self_attn.v_proj.weight";
    case WeightRole::kQueryBias:
      return "self_attn.q_proj.bias";
    case WeightRole::kKeyBias:
      return "self_attn.k_proj.bias";
    case WeightRole::kValueBias:
      return "self_attn.v_proj.bias";
    case WeightRole::kQueryNorm:
      return "self_attn.q_norm.weight";
    case WeightRole::kKeyNorm:
      return "self_attn.k_norm.weight";
    case WeightRole::kOutput:
      return "self_attn.o_proj.weight";
    case WeightRole::kOutputBias:
      return "self_attn.o_proj.bias";
    case WeightRole::kSinks:
      return "self_attn.sinks";
    case WeightRole::kFfnNorm:
      return "post_attention_layernorm.weight";
    case WeightRole::kAttentionPostNorm:
      return "post_self_attn_layernorm.weight";
    case WeightRole::kFfnPostNorm:
      return "post_mlp_layernorm.weight";
    case WeightRole::kGate:
      return "gate_proj.weight";
    case WeightRole::kUp:
      return "up_proj.weight";
    case WeightRole::kDown:
      return "down_proj.weight";
    case WeightRole::kQueryDown:
      return "self_attn.q_a_proj.weight";
    case WeightRole::kQueryDownNorm:
      return "self_attn.q_a_layernorm.weight";
    case WeightRole::kLatentDown:
    case WeightRole::kRopeKey:
      return "self_attn.kv_a_proj_with_mqa.weight";
    case WeightRole::kLatentNorm:
      return "self_attn.kv_a_layernorm.weight";
    case WeightRole::kKeyUp:
    case WeightRole::kValueUp:
      return "self_attn.kv_b_proj.weight";
    case WeightRole::kLinearInput:
      return "self_attn.qkv_proj.weight";
    case WeightRole::kOutputGate:
      return "self_attn.output_gate.weight";
    case WeightRole::kLinearNorm:
      return "self_attn.norm.weight";
    case WeightRole::kDeltaGates:
      return "linear_attn.in_proj_ba.weight";
    case WeightRole::kQueryFilter:
    case WeightRole::kKeyFilter:
    case WeightRole::kValueFilter:
      return "linear_attn.conv1d.weight";
    case WeightRole::kDecayRate:
      return "linear_attn.A_log";
    case WeightRole::kDecayBias:
      return "linear_attn.dt_bias";
    case WeightRole::kIndexQuery:
      return "self_attn.indexer.wq_b.weight";
    case WeightRole::kIndexKey:
      return "self_attn.indexer.wk.weight";
    case WeightRole::kIndexKeyNorm:
      return "self_attn.indexer.k_norm.weight";
    case WeightRole::kIndexKeyNormBias:
      return "self_attn.indexer.k_norm.bias";
    case WeightRole::kIndexWeights:
      return "self_attn.indexer.weights_proj.weight";
    case WeightRole::kRouter:
    case WeightRole::kRouterBias:
    case WeightRole::kSharedGate:
    case WeightRole::kRouterLogitBias:
    case WeightRole::kGateBias:
    case WeightRole::kUpBias:
    case WeightRole::kDownBias:
      break;  // their names depend on the family
    case WeightRole::kDraftEmbeddingNorm:
    case WeightRole::kDraftHiddenNorm:
    case WeightRole::kDraftInput:
      break;  // DraftName
  }
  ESSOR_CHECK(false);
}

// What follows "model.layers.N." for what a draft layer has beside the layer proper, else null.
const char* DraftName(WeightRole role) {
  switch (role) {
    case WeightRole::kEmbedding:
      return "embed_tokens.weight";
    case WeightRole::kDraftEmbeddingNorm:
      return "enorm.weight";
    case WeightRole::kDraftHiddenNorm:
      return "hnorm.weight";
    case WeightRole::kDraftInput:
      return "eh_proj.weight";
    case WeightRole::kFinalNorm:
      return "shared_head.norm.weight";
    case WeightRole::kHead:
      return "shared_head.head.weight";
    default:
      return nullptr;
  }
}

// Latent attention, where names and places differ from CommonName: the query's up projection, and
// the parts of two fused projections. kv_a_proj_with_mqa is [latent, rotated key], kv_b_proj for
// each head [key, value].
void BindAttention(const LatentAttention& attention, const std::string& prefix,
                   WeightBinding& binding) {
  const uint64_t head_rows = uint64_t{attention.nope_head_dim} + attention.value_head_dim;
  switch (binding.role) {
    case WeightRole::kQuery:
      if (attention.q_lora_rank != 0) binding.tensor = prefix + "self_attn.q_b_proj.weight";
      break;
    case WeightRole::kRopeKey:
      binding.first_row = attention.kv_lora_rank;
      break;
    case WeightRole::kKeyUp:
      binding.first_row = static_cast<uint64_t>(binding.head) * head_rows;
      binding.transposed = true;
      break;
    case WeightRole::kValueUp:
      binding.first_row = static_cast<uint64_t>(binding.head) * head_rows + attention.nope_head_dim;
      break;
    default:
      break;
  }
}

void BindAttention(const GroupedQueryAttention&, const std::string&, WeightBinding&) {}

void BindAttention(const LightningAttention&, const std::string& prefix, WeightBinding& binding) {
  if (binding.role == WeightRole::kOutput) binding.tensor = prefix + "self_attn.out_proj.weight";
}

// The filters of queries, keys and values are one tensor, in this order.
void BindAttention(const GatedDeltaNet& attention, const std::string& prefix,
                   WeightBinding& binding) {
  const uint64_t key_width = uint64_t{attention.num_key_heads} * attention.key_head_dim;
  switch (binding.role) {
    case WeightRole::kLinearInput:
      binding.tensor = prefix + "linear_attn.in_proj_qkvz.weight";
      break;
    case WeightRole::kLinearNorm:
      binding.tensor = prefix + "linear_attn.norm.weight";
      break;
    case WeightRole::kOutput:
      binding.tensor = prefix + "linear_attn.out_proj.weight";
      break;
    case WeightRole::kKeyFilter:
      binding.first_row = key_width;
      break;
    case WeightRole::kValueFilter:
      binding.first_row = 2 * key_width;
      break;
    default:
      break;
  }
}

// Gate and up of a dense FFN, where the family stores them as one tensor.
void BindDenseFfn(const DecoderTensorNames& names, const std::string& prefix,
                  WeightBinding& binding) {
  const bool is_up = binding.role == WeightRole::kUp;
  if (names.dense_gate_up == nullptr || (!is_up && binding.role != WeightRole::kGate)) return;
  binding.tensor = prefix + names.dense_gate_up;
  if (is_up) binding.first_row = binding.rows;
}

// Names the tensors of one layer's router and experts.
class MoeBinder {
 public:
  MoeBinder(const std::string& layer_prefix, uint64_t intermediate, const DecoderTensorNames& names,
            const TensorExists& exists)
      : intermediate_(intermediate), names_(names), exists_(exists) {
    const std::string own = absl::StrCat(layer_prefix, names.moe, ".");
    const std::string generic = absl::StrCat(layer_prefix, "mlp.");
    stacked_ = exists(own + "experts.gate_up_proj") || exists(generic + "experts.gate_up_proj");
    prefix_ = exists(generic + names.router) ? generic : own;
    packed_ =
        exists(absl::StrCat(prefix_, "experts.0.", PartName(WeightRole::kGate), ".weight_packed"));
  }

  void Bind(WeightBinding& binding) const {
    if (binding.role == WeightRole::kRouter) {
      binding.tensor = prefix_ + names_.router;
    } else if (binding.role == WeightRole::kRouterBias) {
      binding.tensor = prefix_ + names_.router_bias;
    } else if (binding.role == WeightRole::kSharedGate) {
      binding.tensor = prefix_ + names_.shared_gate;
    } else if (binding.role == WeightRole::kRouterLogitBias) {
      binding.tensor = prefix_ + names_.router_logit_bias;
    } else if (binding.expert < 0) {
      binding.tensor = absl::StrCat(prefix_, names_.shared, ".", PartName(binding.role), ".weight");
    } else if (names_.bind_expert != nullptr) {
      names_.bind_expert(prefix_ + "experts.", exists_, binding);
    } else if (stacked_) {
      BindStacked(binding);
    } else {
      binding.tensor =
          absl::StrCat(prefix_, "experts.", binding.expert, ".", PartName(binding.role), ".weight");
      if (packed_) TakePacked(binding);
    }
  }

 private:
  const char* PartName(WeightRole role) const {
    return role == WeightRole::kGate ? names_.expert_gate
           : role == WeightRole::kUp ? names_.expert_up
                                     : names_.expert_down;
  }

  static void TakePacked(WeightBinding& binding) {
    binding.scales = binding.tensor + "_scale";
    binding.tensor += "_packed";
    binding.packed_as = DType::kOffsetI4;
  }

  void BindStacked(WeightBinding& binding) const {
    const uint64_t expert = static_cast<uint64_t>(binding.expert);
    const bool down = binding.role == WeightRole::kDown;
    binding.tensor = prefix_ + (down ? "experts.down_proj" : "experts.gate_up_proj");
    if (names_.transposed_experts) {
      binding.transposed = true;
      binding.first_row = expert * binding.cols;
      if (down) return;
      binding.tensor_cols = 2 * intermediate_;
      if (binding.role == WeightRole::kUp) binding.first_col = intermediate_;
      return;
    }
    if (down) {
      binding.first_row = expert * binding.rows;
      return;
    }
    binding.first_row = expert * 2 * intermediate_;
    if (binding.role == WeightRole::kUp) binding.first_row += intermediate_;
  }

  const uint64_t intermediate_;
  const DecoderTensorNames& names_;
  const TensorExists& exists_;
  bool stacked_ = false;
  bool packed_ = false;
  std::string prefix_;
};

bool IsMoePart(WeightRole role) {
  switch (role) {
    case WeightRole::kRouter:
    case WeightRole::kRouterBias:
    case WeightRole::kRouterLogitBias:
    case WeightRole::kSharedGate:
    case WeightRole::kGateBias:
    case WeightRole::kUpBias:
    case WeightRole::kDownBias:
      return true;
    default:
      return IsFfnMatrix(role);
  }
}

// Names the tensors of one layer.
class LayerBinder {
 public:
  LayerBinder(const LayerSpec& layer, uint32_t number, const DecoderTensorNames& names,
              const TensorExists& exists)
      : layer_(layer),
        prefix_(absl::StrCat("model.layers.", number, ".")),
        names_(names),
        moe_(std::get_if<MoeFfn>(&layer.ffn)),
        experts_(prefix_, moe_ == nullptr ? 0 : moe_->intermediate_size, names, exists) {}

  void Bind(WeightBinding& weight) const {
    if (const char* of_draft = DraftName(weight.role)) {
      weight.tensor = prefix_ + of_draft;
    } else if (moe_ != nullptr && IsMoePart(weight.role)) {
      experts_.Bind(weight);
    } else {
      const char* const name = CommonName(weight.role);
      weight.tensor = IsFfnMatrix(weight.role) ? absl::StrCat(prefix_, names_.dense, ".", name)
                                               : prefix_ + name;
      BindDenseFfn(names_, prefix_, weight);
      std::visit([&](const auto& kind) { BindAttention(kind, prefix_, weight); }, layer_.attention);
    }
  }

 private:
  const LayerSpec& layer_;
  const std::string prefix_;
  const DecoderTensorNames& names_;
  const MoeFfn* const moe_;
  const MoeBinder experts_;
};

// What a draft layer may share with the model.
bool IsOptional(const WeightBinding& weight) {
  return weight.layer >= 0 &&
         (weight.role == WeightRole::kEmbedding || weight.role == WeightRole::kHead);
}

}  // namespace

std::vector<WeightBinding> BindDecoder(const ModelSpec& spec, const DecoderTensorNames& names,
                                       const TensorExists& exists) {
  std::vector<WeightBinding> bindings;
  std::optional<LayerBinder> binder;
  int32_t layer = -1;  // the binder's
  for (WeightBinding& weight : LogicalWeights(spec)) {
    if (weight.layer < 0) {
      weight.tensor = CommonName(weight.role);
    } else {
      const auto number = static_cast<uint32_t>(weight.layer);
      if (weight.layer != layer) binder.emplace(spec.LayerAt(number), number, names, exists);
      layer = weight.layer;
      binder->Bind(weight);
    }
    if (IsOptional(weight) && !exists(weight.tensor)) continue;
    bindings.push_back(std::move(weight));
  }
  return bindings;
}

bool IsLayerBehindTheLast(const ModelSpec& spec, const std::string& tensor) {
  constexpr std::string_view kLayers = "model.layers.";
  if (!tensor.starts_with(kLayers)) return false;
  const std::string rest = tensor.substr(kLayers.size());
  uint64_t layer = 0;
  return absl::SimpleAtoi(rest.substr(0, rest.find('.')), &layer) && layer >= spec.layers.size() &&
         layer - spec.layers.size() < spec.num_draft_layers;
}

}  // namespace essor::model
