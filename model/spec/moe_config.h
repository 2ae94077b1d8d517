// What the configs of MoE decoders have in common: experts, routers, and which layers have them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/spec/config_view.h"
#include "model/spec/decoder_config.h"
#include "model/spec/model_spec.h"

namespace essor::model {

// All of these answer InvalidArgument naming the key for an absent or contradictory value.

// Experts of one layer, by default `num_experts` or `num_local_experts` (transformers 5 writes the
// latter for Qwen3-MoE and Mixtral).
absl::StatusOr<uint32_t> ReadNumExperts(const ConfigView& config, uint32_t num_layers);
absl::StatusOr<uint32_t> ReadNumExperts(const ConfigView& config, uint32_t num_layers,
                                        const std::string& key);

// Experts that a token goes through.
absl::StatusOr<uint32_t> ReadTopK(const ConfigView& config, uint32_t num_experts,
                                  const std::string& key = "num_experts_per_tok");

// Width of a shared expert: `count_key` times `width` (0 experts: 0).
absl::StatusOr<uint32_t> ReadSharedWidth(const ConfigView& config, const std::string& count_key,
                                         uint32_t width, uint32_t default_count);

// Experts behind Qwen's softmax router: `num_experts`, `num_experts_per_tok`,
// `moe_intermediate_size`, `norm_topk_prob` (absent: `default_renormalise`).
absl::StatusOr<MoeFfn> ReadQwenMoe(const ConfigView& config, uint32_t num_layers,
                                   bool default_renormalise);

// ReadQwenMoe's experts beside a gated shared one of `shared_expert_intermediate_size` columns.
absl::StatusOr<MoeFfn> ReadQwenMoeWithShared(const ConfigView& config, uint32_t num_layers,
                                             bool default_renormalise);

// The FFN of each layer: `moe` where `decoder_sparse_step` does not skip it and `mlp_only_layers`
// does not name it, a dense one of `intermediate_size` columns in the others (Qwen).
absl::StatusOr<std::vector<FfnSpec>> ReadQwenFfns(const ConfigView& config, uint32_t num_layers,
                                                  const MoeFfn& moe);

// What the family's config class in transformers assumes for absent keys.
struct SigmoidMoeDefaults {
  uint32_t num_groups = 1;
  uint32_t top_groups = 1;
  uint32_t num_shared = 1;
  uint32_t num_dense = 1;
  double scale = 1.0;
};

// The MoE keys that DeepSeek-V3 brought and others took over: `n_routed_experts`,
// `n_shared_experts`, `n_group`, `topk_group`, `routed_scaling_factor`, `norm_topk_prob`; a sigmoid
// router with a correction bias. Other values of `scoring_func`, `topk_method` and `moe_layer_freq`
// are refused.
absl::StatusOr<MoeFfn> ReadSigmoidMoe(const ConfigView& config, uint32_t num_layers,
                                      const SigmoidMoeDefaults& defaults);

// Appends the layers of a decoder whose first `first_k_dense_replace` layers are dense
// (`intermediate_size`) and whose others have ReadSigmoidMoe's experts, all with `attention`, and
// sets the number of draft layers (`num_nextn_predict_layers` or `num_mtp_layers`; absent: 1) and,
// where there are layers with experts, draft layers like them.
absl::Status AddDenseThenMoeLayers(const ConfigView& config, const AttentionSpec& attention,
                                   const SigmoidMoeDefaults& defaults, Decoder* decoder);

}  // namespace essor::model
