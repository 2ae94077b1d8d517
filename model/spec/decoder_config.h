// What the configs of Llama-like decoders have in common: sizes, grouped-query attention, RoPE,
// norm, vocabulary. Family files read this and add what is their own.
#pragma once

#include <cstdint>
#include <string>
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
// Floats that linear attention keeps of a sequence in one layer, 1 GiB of them.
inline constexpr uint64_t kMaxStateFloats = 1u << 28;
inline constexpr uint32_t kMaxConvTaps = 8;  // of a gated delta net's convolution
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

// `key`, of a dense FFN.
absl::StatusOr<DenseFfn> ReadDenseFfn(const ConfigView& config,
                                      const std::string& key = "intermediate_size");

// Which layers have softmax attention by `layer_types`, whose other kind is "linear_attention".
absl::StatusOr<std::vector<bool>> ReadFullAttentionLayers(const ConfigView& config,
                                                          uint32_t num_layers);

// Keys visible in each layer, 0 = all: `window` in those that `layer_types`, which is there, calls
// sliding_attention.
absl::StatusOr<std::vector<uint32_t>> ReadLayerWindows(const ConfigView& config,
                                                       uint32_t num_layers, uint32_t window);

// Keys visible in each layer, 0 = all: `sliding_window` where `use_sliding_window` is set, in the
// layers that `layer_types` names or, without it, from `max_window_layers` on (Qwen).
absl::StatusOr<std::vector<uint32_t>> ReadQwenWindows(const ConfigView& config,
                                                      uint32_t num_layers);

}  // namespace essor::model
