// Rotary position embedding: from GGUF keys to Hugging Face's `rope_scaling`.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "model/checkpoint/gguf_json.h"
#include "model/checkpoint/gguf_keys.h"

namespace essor::model {

// The tensor that holds the divisors of Llama 3.1's scaling.
inline constexpr char kGgufRopeFactors[] = "rope_freqs.weight";

struct GgufRope {
  uint64_t rotary_dim = 0;
  double theta = 0;
};

// Writes `rope_scaling` from the keys rope.scaling.* and the tensor rope_freqs.weight.
// InvalidArgument naming the key or tensor for a scaling that is not known.
absl::Status WriteRopeScaling(GgufKeys& keys, const GgufRope& rope, GgufJson& json);

}  // namespace essor::model
