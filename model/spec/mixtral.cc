// Mixtral 8x7B and 8x22B, and models upcycled in their form.
#include "common/status_macros.h"
#include "model/spec/decoder_bindings.h"
#include "model/spec/decoder_config.h"
#include "model/spec/families.h"
#include "model/spec/moe_config.h"

namespace essor::model {
namespace {

absl::StatusOr<ModelSpec> MakeSpec(const ConfigView& config) {
  ESSOR_ASSIGN_OR_RETURN(Decoder decoder, ReadDecoder(config, {.norm_eps = 1e-5,
                                                               .rope_theta = 1e6,
                                                               .max_position_embeddings = 131072,
                                                               .num_kv_heads = 8}));
  if (config.Has("sliding_window")) {
    ESSOR_ASSIGN_OR_RETURN(decoder.attention.sliding_window,
                           config.Size("sliding_window", kMaxPositions));
  }
  MoeFfn ffn;
  ESSOR_ASSIGN_OR_RETURN(ffn.num_experts, ReadNumExperts(config, decoder.num_layers));
  ESSOR_ASSIGN_OR_RETURN(ffn.top_k, ReadTopK(config, ffn.num_experts));
  ESSOR_ASSIGN_OR_RETURN(ffn.intermediate_size, config.Size("intermediate_size", kMaxWidth));
  ffn.router.renormalise = true;
  decoder.spec.layers.assign(decoder.num_layers, {.attention = decoder.attention, .ffn = ffn});
  return decoder.spec;
}

std::vector<WeightBinding> Bind(const ModelSpec& spec, const TensorExists& exists) {
  return BindDecoder(
      spec,
      {.moe = "block_sparse_moe", .expert_gate = "w1", .expert_up = "w3", .expert_down = "w2"},
      exists);
}

}  // namespace

extern const ModelFamily kMixtralFamily = {"mixtral", MakeSpec, Bind};

}  // namespace essor::model
