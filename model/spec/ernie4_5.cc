// ERNIE 4.5: 0.3B (dense), 21B-A3B and 300B-A47B. Llama with interleaved RoPE; the MoE models
// choose by softmax probabilities plus a correction bias and weigh with the renormalised
// probabilities.
#include "common/status_macros.h"
#include "model/spec/decoder_bindings.h"
#include "model/spec/decoder_config.h"
#include "model/spec/families.h"
#include "model/spec/moe_config.h"

namespace essor::model {
namespace {

absl::StatusOr<Decoder> ReadErnie(const ConfigView& config, const DecoderDefaults& defaults) {
  ESSOR_ASSIGN_OR_RETURN(Decoder decoder, ReadDecoder(config, defaults));
  decoder.attention.rope.interleaved = true;
  ESSOR_ASSIGN_OR_RETURN(const bool bias, config.BoolOr("use_bias", false));
  if (bias) return config.Error("use_bias", "biases in every projection are not supported");
  return decoder;
}

absl::StatusOr<ModelSpec> MakeDenseSpec(const ConfigView& config) {
  ESSOR_ASSIGN_OR_RETURN(Decoder decoder, ReadErnie(config, {.norm_eps = 1e-5,
                                                             .rope_theta = 500000,
                                                             .max_position_embeddings = 131072,
                                                             .num_kv_heads = 2,
                                                             .head_dim = 128,
                                                             .tied_embeddings = true}));
  ESSOR_ASSIGN_OR_RETURN(const DenseFfn ffn, ReadDenseFfn(config));
  decoder.spec.layers.assign(decoder.num_layers, {.attention = decoder.attention, .ffn = ffn});
  return decoder.spec;
}

absl::StatusOr<MoeFfn> ReadMoe(const ConfigView& config, uint32_t num_layers) {
  MoeFfn ffn;
  ESSOR_ASSIGN_OR_RETURN(ffn.num_experts, ReadNumExperts(config, num_layers, "moe_num_experts"));
  ESSOR_ASSIGN_OR_RETURN(ffn.top_k, ReadTopK(config, ffn.num_experts, "moe_k"));
  ESSOR_ASSIGN_OR_RETURN(ffn.intermediate_size, config.Size("moe_intermediate_size", kMaxWidth));
  ESSOR_ASSIGN_OR_RETURN(
      ffn.shared_intermediate_size,
      ReadSharedWidth(config, "moe_num_shared_experts", ffn.intermediate_size, 2));
  ffn.router.correction_bias = true;
  return ffn;
}

// Layers start to end (inclusive; -1 = the last one), every interval-th of them.
absl::StatusOr<std::vector<bool>> ReadMoeLayers(const ConfigView& config, uint32_t num_layers) {
  ESSOR_ASSIGN_OR_RETURN(const uint32_t start,
                         config.CountOr("moe_layer_start_index", kMaxLayers, 1));
  ESSOR_ASSIGN_OR_RETURN(const double named_end, config.NumberOr("moe_layer_end_index", -1));
  uint32_t end = num_layers - 1;
  if (named_end != -1) {
    ESSOR_ASSIGN_OR_RETURN(end, config.CountOr("moe_layer_end_index", kMaxLayers, end));
  }
  ESSOR_ASSIGN_OR_RETURN(const uint32_t interval,
                         config.SizeOr("moe_layer_interval", kMaxLayers, 1));
  std::vector<bool> is_moe(num_layers);
  for (uint32_t layer = 0; layer < num_layers; ++layer) {
    is_moe[layer] = (layer + 1) % interval == 0 && layer >= start && layer <= end;
  }
  return is_moe;
}

absl::StatusOr<ModelSpec> MakeMoeSpec(const ConfigView& config) {
  ESSOR_ASSIGN_OR_RETURN(Decoder decoder, ReadErnie(config, {.norm_eps = 1e-5,
                                                             .rope_theta = 500000,
                                                             .max_position_embeddings = 131072,
                                                             .num_kv_heads = 4,
                                                             .tied_embeddings = true}));
  ESSOR_ASSIGN_OR_RETURN(const DenseFfn dense, ReadDenseFfn(config));
  ESSOR_ASSIGN_OR_RETURN(const MoeFfn moe, ReadMoe(config, decoder.num_layers));
  ESSOR_ASSIGN_OR_RETURN(const auto is_moe, ReadMoeLayers(config, decoder.num_layers));
  for (const bool experts : is_moe) {
    LayerSpec layer{.attention = decoder.attention, .ffn = dense};
    if (experts) layer.ffn = moe;
    decoder.spec.layers.push_back(layer);
  }
  return decoder.spec;
}

std::vector<WeightBinding> Bind(const ModelSpec& spec, const TensorExists& exists) {
  return BindDecoder(spec, {.router_bias = "moe_statics.e_score_correction_bias"}, exists);
}

// The MTP block stands under names of its own, `model.mtp_block.0.*` and the like.
bool IsDraft(const ModelSpec&, const std::string& tensor) {
  return tensor.starts_with("model.mtp_") || tensor.starts_with("mtp");
}

}  // namespace

extern const ModelFamily kErnie45Family = {"ernie4_5", MakeDenseSpec, Bind};
extern const ModelFamily kErnie45MoeFamily = {"ernie4_5_moe", MakeMoeSpec, Bind, IsDraft};

}  // namespace essor::model
