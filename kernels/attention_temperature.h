// Llama 4's attention temperature: queries grow with their position, so that a softmax over a long
// context stays as sharp as one over a short context (arXiv 2501.19399).
#pragma once

#include <cstdint>

namespace essor::kernels {

// A query at `position` is multiplied by 1 + scale * ln(1 + floor((position + 1) /
// floor_positions)).
struct AttentionTemperature {
  double scale = 0;  // 0 = queries stay as they are
  double floor_positions = 1;

  // Computed in double, the same for a position in every batch.
  float FactorAt(uint32_t position) const;
};

}  // namespace essor::kernels
