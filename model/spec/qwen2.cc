// Qwen2, Qwen2.5, QwQ-32B, R1-Distill-Qwen: Llama with biases on query, key and value.
#include "common/status_macros.h"
#include "model/spec/decoder_bindings.h"
#include "model/spec/decoder_config.h"
#include "model/spec/families.h"

namespace essor::model {
namespace {

absl::StatusOr<ModelSpec> MakeSpec(const ConfigView& config) {
  ESSOR_ASSIGN_OR_RETURN(Decoder decoder,
                         ReadDecoder(config, {.norm_eps = 1e-6, .max_position_embeddings = 32768}));
  decoder.attention.qkv_bias = true;
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

extern const ModelFamily kQwen2Family = {"qwen2", MakeSpec, Bind};

}  // namespace essor::model
