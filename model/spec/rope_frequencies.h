// The angles of rotary position embedding, from a RopeSpec. One pure function, so that engine,
// reference kernels and tests rotate by the same numbers.
#pragma once

#include <vector>

#include "model/spec/model_spec.h"

namespace essor::model {

struct RopeFrequencies {
  // [rotary_dim / 2]: pair i turns by position * inverse_frequencies[i] radians.
  std::vector<float> inverse_frequencies;
  // Multiplies cos and sin (YaRN); 1 otherwise.
  float attention_factor = 1;
};

// Formulas of transformers' modeling_rope_utils (the definitions that checkpoints were made with),
// computed in double and rounded once. Empty for rotary_dim 0.
RopeFrequencies FrequenciesOf(const RopeSpec& rope);

}  // namespace essor::model
