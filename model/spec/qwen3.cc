// Qwen3 dense: RMSNorm on every query and key head; head_dim independent of the hidden size.
#include "common/status_macros.h"
#include "model/spec/decoder_bindings.h"
#include "model/spec/decoder_config.h"
#include "model/spec/families.h"

namespace essor::model {
namespace {

absl::StatusOr<ModelSpec> MakeSpec(const ConfigView& config) {
  ESSOR_ASSIGN_OR_RETURN(
      Decoder decoder,
      ReadDecoder(config, {.norm_eps = 1e-6, .max_position_embeddings = 32768, .head_dim = 128}));
  ESSOR_ASSIGN_OR_RETURN(const bool bias, config.BoolOr("attention_bias", false));
  decoder.attention.qkv_bias = bias;
  decoder.attention.output_bias = bias;
  decoder.attention.qk_norm = QkNorm::kPerHead;
  ESSOR_ASSIGN_OR_RETURN(const DenseFfn ffn, ReadDenseFfn(config));
  ESSOR_ASSIGN_OR_RETURN(const auto windows, ReadQwenWindows(config, decoder.num_layers));
  for (const uint32_t window : windows) {
    decoder.attention.sliding_window = window;
    decoder.spec.layers.push_back({.attention = decoder.attention, .ffn = ffn});
  }
  return decoder.spec;
}

std::vector<WeightBinding> Bind(const ModelSpec& spec, const TensorExists& exists) {
  return BindDecoder(spec, {}, exists);
}

}  // namespace

extern const ModelFamily kQwen3Family = {"qwen3", MakeSpec, Bind};

}  // namespace essor::model
