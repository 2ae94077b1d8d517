// What the configs of Llama-like decoders have in common: sizes, grouped-query attention, RoPE,
// norm, vocabulary. Family files read this and add what is their own.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "model/spec/config_view.h"
#include "model/spec/model_spec.h"

namespace essor::model {

// What the family's config class in transformers assumes for an absent key.
struct DecoderDefaults {
  double norm_eps = 1e-6;
  double rope_theta = 10000.0;
  uint32_t max_position_embeddings = 0;
  uint32_t num_kv_heads = 0;  // 0 = as many as query heads
  uint32_t head_dim = 0;      // 0 = hidden_size / num_attention_heads
  double partial_rotary_factor = 1.0;
  bool tied_embeddings = false;
};

struct Decoder {
  ModelSpec spec;  // everything but `layers`
  uint32_t num_layers = 0;
  GroupedQueryAttention attention;  // without biases, norms and windows
};

// Limits on what a config may ask for: far above published models, low enough that sizes multiplied
// with each other stay inside 64 bits and that a lying file cannot make us list 10^9 weights.
inline constexpr uint32_t kMaxLayers = 1024;
inline constexpr uint32_t kMaxWidth = 1u << 20;  // hidden, intermediate, heads * head_dim
inline constexpr uint32_t kMaxHeads = 4096;
// Over all layers, where heads have weights of their own.
inline constexpr uint32_t kMaxHeadsOfModel = 1u << 18;
inline constexpr uint32_t kMaxExperts = 4096;             // of one layer
inline constexpr uint32_t kMaxExpertsOfModel = 1u << 18;  // over all layers
inline constexpr uint32_t kMaxVocabulary = 1u << 24;
inline constexpr uint32_t kMaxPositions = 1u << 30;

// What ReadDecoder reads besides attention, for families with another kind of it. `attention` is
// left as it is.
absl::StatusOr<Decoder> ReadDecoderFrame(const ConfigView& config, const DecoderDefaults& defaults);

// InvalidArgument naming the key for an absent, malformed or contradictory value, an activation
// other than silu, and a quantisation that is not supported.
absl::StatusOr<Decoder> ReadDecoder(const ConfigView& config, const DecoderDefaults& defaults);

// `intermediate_size`, of a dense FFN.
absl::StatusOr<DenseFfn> ReadDenseFfn(const ConfigView& config);

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

// Keys visible in each layer, 0 = all: `sliding_window` where `use_sliding_window` is set, in the
// layers that `layer_types` names or, without it, from `max_window_layers` on (Qwen).
absl::StatusOr<std::vector<uint32_t>> ReadQwenWindows(const ConfigView& config,
                                                      uint32_t num_layers);

}  // namespace essor::model
