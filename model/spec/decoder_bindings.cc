#include "model/spec/decoder_bindings.h"

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

// What follows "model.layers.N." for weights that all these decoders name alike; outside the layers
// the whole name.
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
    case WeightRole::kFfnNorm:
      return "post_attention_layernorm.weight";
    case WeightRole::kAttentionPostNorm:
      return "post_self_attn_layernorm.weight";
    case WeightRole::kFfnPostNorm:
      return "post_mlp_layernorm.weight";
    case WeightRole::kGate:
      return "mlp.gate_proj.weight";
    case WeightRole::kUp:
      return "mlp.up_proj.weight";
    case WeightRole::kDown:
      return "mlp.down_proj.weight";
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
      break;  // their names depend on the family
  }
  ESSOR_CHECK(false);
}

// Latent attention, where names and places differ from CommonName: the query's up projection, and
// the parts of two fused projections. kv_a_proj_with_mqa is [latent, rotated key], kv_b_proj for
// each head [key, value].
void BindLatentAttention(const LatentAttention& attention, const std::string& prefix,
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
      : intermediate_(intermediate), names_(names) {
    const std::string own = absl::StrCat(layer_prefix, names.moe, ".");
    const std::string generic = absl::StrCat(layer_prefix, "mlp.");
    stacked_ = exists(own + "experts.gate_up_proj") || exists(generic + "experts.gate_up_proj");
    prefix_ = exists(generic + "gate.weight") ? generic : own;
  }

  void Bind(WeightBinding& binding) const {
    if (binding.role == WeightRole::kRouter) {
      binding.tensor = prefix_ + "gate.weight";
    } else if (binding.role == WeightRole::kRouterBias) {
      binding.tensor = prefix_ + names_.router_bias;
    } else if (binding.expert < 0) {
      binding.tensor = absl::StrCat(prefix_, names_.shared, ".", PartName(binding.role), ".weight");
    } else if (stacked_) {
      BindStacked(binding);
    } else {
      binding.tensor =
          absl::StrCat(prefix_, "experts.", binding.expert, ".", PartName(binding.role), ".weight");
    }
  }

 private:
  const char* PartName(WeightRole role) const {
    return role == WeightRole::kGate ? names_.expert_gate
           : role == WeightRole::kUp ? names_.expert_up
                                     : names_.expert_down;
  }

  void BindStacked(WeightBinding& binding) const {
    const uint64_t expert = static_cast<uint64_t>(binding.expert);
    if (binding.role == WeightRole::kDown) {
      binding.tensor = prefix_ + "experts.down_proj";
      binding.first_row = expert * binding.rows;
      return;
    }
    binding.tensor = prefix_ + "experts.gate_up_proj";
    binding.first_row = expert * 2 * intermediate_;
    if (binding.role == WeightRole::kUp) binding.first_row += intermediate_;
  }

  const uint64_t intermediate_;
  const DecoderTensorNames& names_;
  bool stacked_ = false;
  std::string prefix_;
};

bool IsMoePart(WeightRole role) {
  return role == WeightRole::kRouter || role == WeightRole::kRouterBias || IsFfnMatrix(role);
}

}  // namespace

std::vector<WeightBinding> BindDecoder(const ModelSpec& spec, const DecoderTensorNames& names,
                                       const TensorExists& exists) {
  std::vector<WeightBinding> bindings;
  const auto add = [&](const std::string& prefix, WeightBinding weight) {
    weight.tensor = prefix + CommonName(weight.role);
    bindings.push_back(std::move(weight));
  };
  auto weights = LogicalWeights(spec);
  size_t next = 0;
  for (; weights[next].layer < 0; ++next) add("", std::move(weights[next]));
  for (uint32_t layer = 0; layer < spec.layers.size(); ++layer) {
    const std::string prefix = absl::StrCat("model.layers.", layer, ".");
    const auto* moe = std::get_if<MoeFfn>(&spec.layers[layer].ffn);
    const MoeBinder binder(prefix, moe == nullptr ? 0 : moe->intermediate_size, names, exists);
    for (; weights[next].layer == static_cast<int32_t>(layer); ++next) {
      if (moe == nullptr || !IsMoePart(weights[next].role)) {
        add(prefix, std::move(weights[next]));
        BindDenseFfn(names, prefix, bindings.back());
        const AttentionSpec& attention = spec.layers[layer].attention;
        if (const auto* latent = std::get_if<LatentAttention>(&attention)) {
          BindLatentAttention(*latent, prefix, bindings.back());
        }
        continue;
      }
      binder.Bind(weights[next]);
      bindings.push_back(std::move(weights[next]));
    }
  }
  for (; next < weights.size(); ++next) add("", std::move(weights[next]));
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
