// Qwen1.5-MoE-A2.7B, Qwen2-57B-A14B: Qwen2 attention, experts behind a softmax router beside a
// gated shared one.
#include <cstdint>
#include <vector>

#include "common/status_macros.h"
#include "model/spec/decoder_bindings.h"
#include "model/spec/decoder_config.h"
#include "model/spec/families.h"
#include "model/spec/moe_config.h"

namespace essor::model {
namespace {

// Keys visible in each layer, 0 = all. Unlike in the dense Qwen2, a window holds for every other
// layer, from the first on and before max_window_layers (transformers, Qwen2MoeConfig).
absl::StatusOr<std::vector<uint32_t>> ReadWindows(const ConfigView& config, uint32_t num_layers) {
  if (config.Has("layer_types")) return ReadQwenWindows(config, num_layers);
  std::vector<uint32_t> windows(num_layers, 0);
  ESSOR_ASSIGN_OR_RETURN(const bool enabled, config.BoolOr("use_sliding_window", false));
  if (!enabled) return windows;
  ESSOR_ASSIGN_OR_RETURN(const uint32_t window,
                         config.SizeOr("sliding_window", kMaxPositions, 4096));
  ESSOR_ASSIGN_OR_RETURN(const double end, config.NumberOr("max_window_layers", 28));
  for (uint32_t layer = 0; layer < num_layers && layer < end; layer += 2) windows[layer] = window;
  return windows;
}

absl::StatusOr<ModelSpec> MakeSpec(const ConfigView& config) {
  ESSOR_ASSIGN_OR_RETURN(Decoder decoder, ReadDecoder(config, {.norm_eps = 1e-6,
                                                               .max_position_embeddings = 32768,
                                                               .num_kv_heads = 16}));
  ESSOR_ASSIGN_OR_RETURN(decoder.attention.qkv_bias, config.BoolOr("qkv_bias", true));
  ESSOR_ASSIGN_OR_RETURN(const auto windows, ReadWindows(config, decoder.num_layers));
  ESSOR_ASSIGN_OR_RETURN(const MoeFfn moe,
                         ReadQwenMoeWithShared(config, decoder.num_layers, false));
  ESSOR_ASSIGN_OR_RETURN(const auto ffns, ReadQwenFfns(config, decoder.num_layers, moe));
  for (uint32_t layer = 0; layer < decoder.num_layers; ++layer) {
    decoder.attention.sliding_window = windows[layer];
    decoder.spec.layers.push_back({.attention = decoder.attention, .ffn = ffns[layer]});
  }
  return decoder.spec;
}

std::vector<WeightBinding> Bind(const ModelSpec& spec, const TensorExists& exists) {
  return BindDecoder(spec, {.shared = "shared_expert"}, exists);
}

}  // namespace

extern const ModelFamily kQwen2MoeFamily = {"qwen2_moe", MakeSpec, Bind};

}  // namespace essor::model
