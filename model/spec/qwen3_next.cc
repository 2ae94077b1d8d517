// Qwen3-Next-80B-A3B: gated delta nets in three of four layers, attention with an output gate in
// the others, experts with a gated shared one everywhere.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "model/spec/decoder_bindings.h"
#include "model/spec/decoder_config.h"
#include "model/spec/families.h"
#include "model/spec/moe_config.h"

namespace essor::model {
namespace {

absl::StatusOr<GatedDeltaNet> ReadDeltaNet(const ConfigView& config) {
  GatedDeltaNet net;
  ESSOR_ASSIGN_OR_RETURN(net.num_key_heads, config.SizeOr("linear_num_key_heads", kMaxHeads, 16));
  ESSOR_ASSIGN_OR_RETURN(net.num_value_heads,
                         config.SizeOr("linear_num_value_heads", kMaxHeads, 32));
  ESSOR_ASSIGN_OR_RETURN(net.key_head_dim, config.SizeOr("linear_key_head_dim", kMaxWidth, 128));
  ESSOR_ASSIGN_OR_RETURN(net.value_head_dim,
                         config.SizeOr("linear_value_head_dim", kMaxWidth, 128));
  ESSOR_ASSIGN_OR_RETURN(net.conv_taps, config.SizeOr("linear_conv_kernel_dim", kMaxConvTaps, 4));
  if (net.num_value_heads % net.num_key_heads != 0) {
    return config.Error("linear_num_value_heads",
                        absl::StrCat(net.num_value_heads, " is not a multiple of the ",
                                     net.num_key_heads, " key heads"));
  }
  const uint64_t width = uint64_t{net.num_key_heads} * net.key_head_dim +
                         uint64_t{net.num_value_heads} * net.value_head_dim;
  if (width > kMaxWidth) {
    return config.Error("linear_value_head_dim",
                        absl::StrCat("keys and values of ", width, " exceed ", kMaxWidth));
  }
  const uint64_t state =
      uint64_t{net.num_value_heads} * net.key_head_dim * uint64_t{net.value_head_dim};
  if (state > kMaxStateFloats) {
    return config.Error("linear_key_head_dim",
                        absl::StrCat("states of ", state, " values exceed ", kMaxStateFloats));
  }
  return net;
}

// Which layers have softmax attention: `layer_types`, or every `full_attention_interval`-th.
absl::StatusOr<std::vector<bool>> ReadSoftmaxLayers(const ConfigView& config, uint32_t num_layers) {
  if (config.Has("layer_types")) return ReadFullAttentionLayers(config, num_layers);
  ESSOR_ASSIGN_OR_RETURN(const uint32_t interval,
                         config.SizeOr("full_attention_interval", kMaxLayers, 4));
  std::vector<bool> softmax;
  for (uint32_t layer = 0; layer < num_layers; ++layer) {
    softmax.push_back((layer + 1) % interval == 0);
  }
  return softmax;
}

absl::StatusOr<ModelSpec> MakeSpec(const ConfigView& config) {
  ESSOR_ASSIGN_OR_RETURN(Decoder decoder, ReadDecoder(config, {.norm_eps = 1e-6,
                                                               .max_position_embeddings = 32768,
                                                               .num_kv_heads = 2,
                                                               .head_dim = 256,
                                                               .partial_rotary_factor = 0.25}));
  ESSOR_ASSIGN_OR_RETURN(const bool bias, config.BoolOr("attention_bias", false));
  if (bias) return config.Error("attention_bias", "is not supported beside an output gate");
  decoder.attention.qk_norm = QkNorm::kPerHead;
  decoder.attention.output_gate = true;
  ESSOR_ASSIGN_OR_RETURN(const GatedDeltaNet net, ReadDeltaNet(config));
  ESSOR_ASSIGN_OR_RETURN(const auto softmax, ReadSoftmaxLayers(config, decoder.num_layers));
  ESSOR_ASSIGN_OR_RETURN(const MoeFfn moe, ReadQwenMoeWithShared(config, decoder.num_layers, true));
  ESSOR_ASSIGN_OR_RETURN(const auto ffns, ReadQwenFfns(config, decoder.num_layers, moe));
  for (uint32_t layer = 0; layer < decoder.num_layers; ++layer) {
    LayerSpec parts{.attention = net, .ffn = ffns[layer]};
    if (softmax[layer]) parts.attention = decoder.attention;
    decoder.spec.layers.push_back(std::move(parts));
  }
  return decoder.spec;
}

// All norms but that of the delta nets are stored minus 1.
bool IsZeroCentred(WeightRole role) {
  return role == WeightRole::kFinalNorm || role == WeightRole::kAttentionNorm ||
         role == WeightRole::kFfnNorm || role == WeightRole::kQueryNorm ||
         role == WeightRole::kKeyNorm;
}

std::vector<WeightBinding> Bind(const ModelSpec& spec, const TensorExists& exists) {
  std::vector<WeightBinding> bindings = BindDecoder(spec, {.shared = "shared_expert"}, exists);
  for (WeightBinding& binding : bindings) binding.zero_centred = IsZeroCentred(binding.role);
  return bindings;
}

bool IsDraft(const ModelSpec&, const std::string& tensor) { return tensor.starts_with("mtp."); }

}  // namespace

extern const ModelFamily kQwen3NextFamily = {
    .model_type = "qwen3_next", .make_spec = MakeSpec, .bind = Bind, .is_draft = IsDraft};

}  // namespace essor::model
