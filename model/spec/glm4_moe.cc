// GLM-4.5, GLM-4.5-Air, GLM-4.6 and 4.7: QKV bias, QK-norm in the large ones, half of each head
// rotated, DeepSeek-V3's router, a shared expert, the first layers dense.
#include "common/status_macros.h"
#include "model/spec/decoder_bindings.h"
#include "model/spec/decoder_config.h"
#include "model/spec/families.h"
#include "model/spec/moe_config.h"

namespace essor::model {
namespace {

absl::StatusOr<ModelSpec> MakeSpec(const ConfigView& config) {
  ESSOR_ASSIGN_OR_RETURN(Decoder decoder, ReadDecoder(config, {.norm_eps = 1e-5,
                                                               .max_position_embeddings = 131072,
                                                               .num_kv_heads = 8,
                                                               .partial_rotary_factor = 0.5}));
  ESSOR_ASSIGN_OR_RETURN(decoder.attention.qkv_bias, config.BoolOr("attention_bias", false));
  ESSOR_ASSIGN_OR_RETURN(const bool qk_norm, config.BoolOr("use_qk_norm", false));
  if (qk_norm) decoder.attention.qk_norm = QkNorm::kPerHead;
  ESSOR_RETURN_IF_ERROR(AddDenseThenMoeLayers(config, decoder.attention, {}, &decoder));
  return decoder.spec;
}

std::vector<WeightBinding> Bind(const ModelSpec& spec, const TensorExists& exists) {
  return BindDecoder(spec, {}, exists);
}

}  // namespace

extern const ModelFamily kGlm4MoeFamily = {"glm4_moe", MakeSpec, Bind, IsLayerBehindTheLast};

}  // namespace essor::model
