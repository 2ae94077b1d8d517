// MiniMax-M2, M2.1, M2.5 and M2.7: QK-norm over the dims of all heads, half of each head rotated,
// experts in every layer behind a sigmoid router with a correction bias. Up to three MTP modules
// behind the last layer are not bound.
#include <algorithm>
#include <cstdint>
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

// Keys of the released configs of which only one value has been released.
absl::Status RefuseOtherVariants(const ConfigView& config) {
  ESSOR_ASSIGN_OR_RETURN(const auto types, config.Integers("attn_type_list"));
  if (std::any_of(types.begin(), types.end(), [](int64_t type) { return type != 1; })) {
    return config.Error("attn_type_list", "attention other than full (1) is not supported");
  }
  ESSOR_ASSIGN_OR_RETURN(const std::string norm, config.StringOr("qk_norm_type", "per_layer"));
  if (norm != "per_layer") {
    return config.Error("qk_norm_type", absl::StrCat("\"", norm, "\" is not per_layer"));
  }
  ESSOR_ASSIGN_OR_RETURN(const std::string score, config.StringOr("scoring_func", "sigmoid"));
  if (score != "sigmoid") {
    return config.Error("scoring_func", absl::StrCat("\"", score, "\" is not sigmoid"));
  }
  ESSOR_ASSIGN_OR_RETURN(const uint32_t shared,
                         config.CountOr("shared_intermediate_size", kMaxWidth, 0));
  if (shared != 0) {
    return config.Error("shared_intermediate_size", "a shared expert is not supported");
  }
  return absl::OkStatus();
}

absl::StatusOr<Decoder> ReadM2Decoder(const ConfigView& config) {
  DecoderDefaults defaults{.norm_eps = 1e-6,
                           .rope_theta = 5e6,
                           .max_position_embeddings = 196608,
                           .num_kv_heads = 8,
                           .head_dim = 128};
  // How the releases say what part of a head rotates.
  if (config.Has("rotary_dim")) {
    ESSOR_ASSIGN_OR_RETURN(const uint32_t head_dim,
                           config.SizeOr("head_dim", kMaxWidth, defaults.head_dim));
    ESSOR_ASSIGN_OR_RETURN(const uint32_t rotary_dim, config.Size("rotary_dim", head_dim));
    defaults.partial_rotary_factor = static_cast<double>(rotary_dim) / head_dim;
  }
  return ReadDecoder(config, defaults);
}

absl::StatusOr<MoeFfn> ReadMoe(const ConfigView& config, uint32_t num_layers) {
  MoeFfn ffn;
  ESSOR_ASSIGN_OR_RETURN(ffn.num_experts, ReadNumExperts(config, num_layers));
  ESSOR_ASSIGN_OR_RETURN(ffn.top_k, ReadTopK(config, ffn.num_experts));
  ESSOR_ASSIGN_OR_RETURN(ffn.intermediate_size, config.Size("intermediate_size", kMaxWidth));
  ffn.router.score = RouterSpec::Score::kSigmoid;
  ESSOR_ASSIGN_OR_RETURN(ffn.router.correction_bias, config.BoolOr("use_routing_bias", true));
  return ffn;
}

absl::StatusOr<ModelSpec> MakeSpec(const ConfigView& config) {
  ESSOR_RETURN_IF_ERROR(RefuseOtherVariants(config));
  ESSOR_ASSIGN_OR_RETURN(Decoder decoder, ReadM2Decoder(config));
  ESSOR_ASSIGN_OR_RETURN(const bool norm, config.BoolOr("use_qk_norm", true));
  if (norm) decoder.attention.qk_norm = QkNorm::kFullWidth;
  ESSOR_ASSIGN_OR_RETURN(const MoeFfn moe, ReadMoe(config, decoder.num_layers));
  ESSOR_ASSIGN_OR_RETURN(decoder.spec.num_draft_layers,
                         config.CountOr("num_mtp_modules", kMaxLayers, 3));
  decoder.spec.layers.assign(decoder.num_layers, {.attention = decoder.attention, .ffn = moe});
  return decoder.spec;
}

std::vector<WeightBinding> Bind(const ModelSpec& spec, const TensorExists& exists) {
  return BindDecoder(spec,
                     {.moe = "block_sparse_moe",
                      .expert_gate = "w1",
                      .expert_up = "w3",
                      .expert_down = "w2",
                      .router_bias = "e_score_correction_bias"},
                     exists);
}

}  // namespace

extern const ModelFamily kMiniMaxM2Family = {"minimax_m2", MakeSpec, Bind, IsLayerBehindTheLast};

}  // namespace essor::model
