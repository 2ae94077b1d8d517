// Qwen3-30B-A3B, Qwen3-235B-A22B, Qwen3-Coder: Qwen3 attention; layers are MoE except those that
// mlp_only_layers names and those that decoder_sparse_step skips.
#include "common/status_macros.h"
#include "model/spec/decoder_bindings.h"
#include "model/spec/decoder_config.h"
#include "model/spec/families.h"
#include "model/spec/moe_config.h"

namespace essor::model {
namespace {

absl::StatusOr<ModelSpec> MakeSpec(const ConfigView& config) {
  ESSOR_ASSIGN_OR_RETURN(
      Decoder decoder,
      ReadDecoder(config, {.norm_eps = 1e-6, .max_position_embeddings = 32768, .num_kv_heads = 4}));
  ESSOR_ASSIGN_OR_RETURN(const bool bias, config.BoolOr("attention_bias", false));
  decoder.attention.qkv_bias = bias;
  decoder.attention.output_bias = bias;
  decoder.attention.qk_norm = QkNorm::kPerHead;
  // Unlike the dense Qwen3, a window holds for every layer.
  ESSOR_ASSIGN_OR_RETURN(const bool windowed, config.BoolOr("use_sliding_window", false));
  if (windowed) {
    ESSOR_ASSIGN_OR_RETURN(decoder.attention.sliding_window,
                           config.SizeOr("sliding_window", kMaxPositions, 4096));
  }
  ESSOR_ASSIGN_OR_RETURN(const MoeFfn moe, ReadQwenMoe(config, decoder.num_layers, false));
  ESSOR_ASSIGN_OR_RETURN(const auto ffns, ReadQwenFfns(config, decoder.num_layers, moe));
  for (const FfnSpec& ffn : ffns) {
    decoder.spec.layers.push_back({.attention = decoder.attention, .ffn = ffn});
  }
  return decoder.spec;
}

std::vector<WeightBinding> Bind(const ModelSpec& spec, const TensorExists& exists) {
  return BindDecoder(spec, {}, exists);
}

}  // namespace

extern const ModelFamily kQwen3MoeFamily = {"qwen3_moe", MakeSpec, Bind};

}  // namespace essor::model
