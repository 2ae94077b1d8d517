// What the configs of MoE decoders have in common: experts, routers, and which layers have them.
#pragma once

#include <cstdint>
#include <string>

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
                                         uint32_t width);

// The MoE keys that DeepSeek-V3 brought and others took over: `n_routed_experts`,
// `n_shared_experts`, `n_group`, `topk_group`, `routed_scaling_factor`, `norm_topk_prob`; a sigmoid
// router with a correction bias.
absl::StatusOr<MoeFfn> ReadSigmoidMoe(const ConfigView& config, uint32_t num_layers);

// The layers of a decoder whose first `first_k_dense_replace` layers are dense
// (`intermediate_size`) and whose others have ReadSigmoidMoe's experts, all with `attention`;
// appended to decoder.spec.
absl::Status AddDenseThenMoeLayers(const ConfigView& config, const AttentionSpec& attention,
                                   uint32_t default_num_dense, Decoder* decoder);

}  // namespace essor::model
