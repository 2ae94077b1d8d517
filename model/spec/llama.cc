// Llama 2 and 3 (all sizes), and models published as Llama: SmolLM2, R1-Distill-Llama.
#include "common/status_macros.h"
#include "model/spec/decoder_bindings.h"
#include "model/spec/decoder_config.h"
#include "model/spec/families.h"

namespace essor::model {
namespace {

absl::StatusOr<ModelSpec> MakeSpec(const ConfigView& config) {
  ESSOR_ASSIGN_OR_RETURN(Decoder decoder,
                         ReadDecoder(config, {.norm_eps = 1e-6, .max_position_embeddings = 2048}));
  ESSOR_ASSIGN_OR_RETURN(const bool bias, config.BoolOr("attention_bias", false));
  ESSOR_ASSIGN_OR_RETURN(const bool mlp_bias, config.BoolOr("mlp_bias", false));
  if (mlp_bias) return config.Error("mlp_bias", "biases of the FFN are not supported");
  decoder.attention.qkv_bias = bias;
  decoder.attention.output_bias = bias;
  ESSOR_ASSIGN_OR_RETURN(const DenseFfn ffn, ReadDenseFfn(config));
  decoder.spec.layers.assign(decoder.num_layers, {.attention = decoder.attention, .ffn = ffn});
  return decoder.spec;
}

std::vector<WeightBinding> Bind(const ModelSpec& spec, const TensorExists& exists) {
  return BindDecoder(spec, {}, exists);
}

}  // namespace

extern const ModelFamily kLlamaFamily = {"llama", MakeSpec, Bind};

}  // namespace essor::model
