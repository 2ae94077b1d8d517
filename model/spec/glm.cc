// GLM-4-9B and GLM-4-0414 in the form of transformers (GlmForCausalLM, Glm4ForCausalLM): QKV bias,
// interleaved RoPE on half of each head, gate and up of the FFN in one tensor. The latter also
// normalises what attention and FFN give.
#include "common/status_macros.h"
#include "model/spec/decoder_bindings.h"
#include "model/spec/decoder_config.h"
#include "model/spec/families.h"

namespace essor::model {
namespace {

absl::StatusOr<ModelSpec> MakeSpec(const ConfigView& config, bool post_norms) {
  ESSOR_ASSIGN_OR_RETURN(Decoder decoder, ReadDecoder(config, {.norm_eps = 1.5625e-7,
                                                               .max_position_embeddings = 131072,
                                                               .num_kv_heads = 2,
                                                               .head_dim = 128,
                                                               .partial_rotary_factor = 0.5}));
  ESSOR_ASSIGN_OR_RETURN(decoder.attention.qkv_bias, config.BoolOr("attention_bias", true));
  decoder.attention.rope.interleaved = true;
  ESSOR_ASSIGN_OR_RETURN(const DenseFfn ffn, ReadDenseFfn(config));
  decoder.spec.layers.assign(
      decoder.num_layers, {.attention = decoder.attention, .ffn = ffn, .post_norms = post_norms});
  return decoder.spec;
}

absl::StatusOr<ModelSpec> MakeGlmSpec(const ConfigView& config) { return MakeSpec(config, false); }
absl::StatusOr<ModelSpec> MakeGlm4Spec(const ConfigView& config) { return MakeSpec(config, true); }

std::vector<WeightBinding> Bind(const ModelSpec& spec, const TensorExists& exists) {
  return BindDecoder(spec, {.dense_gate_up = "mlp.gate_up_proj.weight"}, exists);
}

}  // namespace

extern const ModelFamily kGlmFamily = {"glm", MakeGlmSpec, Bind};
extern const ModelFamily kGlm4Family = {"glm4", MakeGlm4Spec, Bind};

}  // namespace essor::model
