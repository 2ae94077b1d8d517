#include "model/spec/moe_config.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace essor::model {
namespace {

// What vendors' own code can do besides and no published checkpoint of these families asks for.
absl::Status RefuseOtherRouters(const ConfigView& config) {
  ESSOR_ASSIGN_OR_RETURN(const std::string score, config.StringOr("scoring_func", "sigmoid"));
  if (score != "sigmoid") {
    return config.Error("scoring_func", absl::StrCat("\"", score, "\" is not sigmoid"));
  }
  ESSOR_ASSIGN_OR_RETURN(const std::string method, config.StringOr("topk_method", "noaux_tc"));
  if (method != "noaux_tc") {
    return config.Error("topk_method", absl::StrCat("\"", method, "\" is not noaux_tc"));
  }
  ESSOR_ASSIGN_OR_RETURN(const uint32_t step, config.SizeOr("moe_layer_freq", kMaxLayers, 1));
  if (step != 1) return config.Error("moe_layer_freq", absl::StrCat(step, " is not 1"));
  return absl::OkStatus();
}

absl::StatusOr<RouterSpec> ReadSigmoidRouter(const ConfigView& config, const MoeFfn& ffn,
                                             const SigmoidMoeDefaults& defaults) {
  ESSOR_RETURN_IF_ERROR(RefuseOtherRouters(config));
  RouterSpec router{.score = RouterSpec::Score::kSigmoid, .correction_bias = true};
  ESSOR_ASSIGN_OR_RETURN(router.num_groups,
                         config.SizeOr("n_group", kMaxExperts, defaults.num_groups));
  ESSOR_ASSIGN_OR_RETURN(router.top_groups,
                         config.SizeOr("topk_group", kMaxExperts, defaults.top_groups));
  if (ffn.num_experts % router.num_groups != 0) {
    return config.Error("n_group", absl::StrCat(router.num_groups, " does not divide the ",
                                                ffn.num_experts, " experts"));
  }
  const uint32_t reachable = ffn.num_experts / router.num_groups * router.top_groups;
  if (router.top_groups > router.num_groups || reachable < ffn.top_k) {
    return config.Error("topk_group",
                        absl::StrCat(router.top_groups, " of ", router.num_groups, " groups with ",
                                     reachable, " experts cannot give ", ffn.top_k));
  }
  ESSOR_ASSIGN_OR_RETURN(router.scale, config.PositiveOr("routed_scaling_factor", defaults.scale));
  ESSOR_ASSIGN_OR_RETURN(router.renormalise, config.BoolOr("norm_topk_prob", true));
  return router;
}

}  // namespace

absl::StatusOr<uint32_t> ReadNumExperts(const ConfigView& config, uint32_t num_layers) {
  return ReadNumExperts(config, num_layers,
                        config.Has("num_experts") ? "num_experts" : "num_local_experts");
}

absl::StatusOr<uint32_t> ReadNumExperts(const ConfigView& config, uint32_t num_layers,
                                        const std::string& key) {
  ESSOR_ASSIGN_OR_RETURN(const uint32_t num_experts, config.Size(key, kMaxExperts));
  if (uint64_t{num_experts} * num_layers > kMaxExpertsOfModel) {
    return config.Error(key, absl::StrCat(num_experts, " in each of ", num_layers,
                                          " layers are more than ", kMaxExpertsOfModel));
  }
  return num_experts;
}

absl::StatusOr<uint32_t> ReadTopK(const ConfigView& config, uint32_t num_experts,
                                  const std::string& key) {
  ESSOR_ASSIGN_OR_RETURN(const uint32_t top_k, config.Size(key, kMaxExperts));
  if (top_k > num_experts) {
    return config.Error(key, absl::StrCat(top_k, " exceeds the ", num_experts, " experts"));
  }
  return top_k;
}

absl::StatusOr<uint32_t> ReadSharedWidth(const ConfigView& config, const std::string& count_key,
                                         uint32_t width, uint32_t default_count) {
  ESSOR_ASSIGN_OR_RETURN(const uint32_t count,
                         config.CountOr(count_key, kMaxWidth / width, default_count));
  return count * width;
}

absl::StatusOr<MoeFfn> ReadQwenMoe(const ConfigView& config, uint32_t num_layers,
                                   bool default_renormalise) {
  MoeFfn ffn;
  ESSOR_ASSIGN_OR_RETURN(ffn.num_experts, ReadNumExperts(config, num_layers));
  ESSOR_ASSIGN_OR_RETURN(ffn.top_k, ReadTopK(config, ffn.num_experts));
  ESSOR_ASSIGN_OR_RETURN(ffn.intermediate_size, config.Size("moe_intermediate_size", kMaxWidth));
  ESSOR_ASSIGN_OR_RETURN(ffn.router.renormalise,
                         config.BoolOr("norm_topk_prob", default_renormalise));
  return ffn;
}

absl::StatusOr<MoeFfn> ReadQwenMoeWithShared(const ConfigView& config, uint32_t num_layers,
                                             bool default_renormalise) {
  ESSOR_ASSIGN_OR_RETURN(MoeFfn ffn, ReadQwenMoe(config, num_layers, default_renormalise));
  ESSOR_ASSIGN_OR_RETURN(ffn.shared_intermediate_size,
                         config.Size("shared_expert_intermediate_size", kMaxWidth));
  ffn.shared_gate = true;
  return ffn;
}

absl::StatusOr<std::vector<FfnSpec>> ReadQwenFfns(const ConfigView& config, uint32_t num_layers,
                                                  const MoeFfn& moe) {
  ESSOR_ASSIGN_OR_RETURN(const auto dense_layers, config.Integers("mlp_only_layers"));
  ESSOR_ASSIGN_OR_RETURN(const uint32_t step, config.SizeOr("decoder_sparse_step", kMaxLayers, 1));
  std::vector<FfnSpec> ffns(num_layers, moe);
  for (uint32_t layer = 0; layer < num_layers; ++layer) {
    const bool listed =
        std::find(dense_layers.begin(), dense_layers.end(), layer) != dense_layers.end();
    if (!listed && (layer + 1) % step == 0) continue;
    ESSOR_ASSIGN_OR_RETURN(ffns[layer], ReadDenseFfn(config));
  }
  return ffns;
}

absl::StatusOr<MoeFfn> ReadSigmoidMoe(const ConfigView& config, uint32_t num_layers,
                                      const SigmoidMoeDefaults& defaults) {
  MoeFfn ffn;
  ESSOR_ASSIGN_OR_RETURN(ffn.num_experts, ReadNumExperts(config, num_layers, "n_routed_experts"));
  ESSOR_ASSIGN_OR_RETURN(ffn.top_k, ReadTopK(config, ffn.num_experts));
  ESSOR_ASSIGN_OR_RETURN(ffn.intermediate_size, config.Size("moe_intermediate_size", kMaxWidth));
  ESSOR_ASSIGN_OR_RETURN(
      ffn.shared_intermediate_size,
      ReadSharedWidth(config, "n_shared_experts", ffn.intermediate_size, defaults.num_shared));
  ESSOR_ASSIGN_OR_RETURN(ffn.router, ReadSigmoidRouter(config, ffn, defaults));
  return ffn;
}

absl::Status AddDenseThenMoeLayers(const ConfigView& config, const AttentionSpec& attention,
                                   const SigmoidMoeDefaults& defaults, Decoder* decoder) {
  ESSOR_ASSIGN_OR_RETURN(const uint32_t num_dense,
                         config.CountOr("first_k_dense_replace", kMaxLayers, defaults.num_dense));
  LayerSpec dense{.attention = attention, .ffn = {}};
  LayerSpec sparse = dense;
  if (num_dense > 0) {
    ESSOR_ASSIGN_OR_RETURN(dense.ffn, ReadDenseFfn(config));
  }
  if (num_dense < decoder->num_layers) {
    ESSOR_ASSIGN_OR_RETURN(sparse.ffn, ReadSigmoidMoe(config, decoder->num_layers, defaults));
  }
  const char* draft_key =
      config.Has("num_mtp_layers") ? "num_mtp_layers" : "num_nextn_predict_layers";
  ESSOR_ASSIGN_OR_RETURN(decoder->spec.num_draft_layers, config.CountOr(draft_key, kMaxLayers, 1));
  for (uint32_t layer = 0; layer < decoder->num_layers; ++layer) {
    decoder->spec.layers.push_back(layer < num_dense ? dense : sparse);
  }
  if (num_dense < decoder->num_layers) {
    decoder->spec.draft_layers.assign(decoder->spec.num_draft_layers, sparse);
  }
  return absl::OkStatus();
}

}  // namespace essor::model
