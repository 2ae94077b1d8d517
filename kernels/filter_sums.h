// The integer sums of kernels/filtered_sampling.h over one slice; on the calling thread.
#pragma once

#include <span>

#include "kernels/exp_of_non_positive.h"
#include "kernels/filtered_sampling.h"

namespace essor::kernels {

inline constexpr float kFilterUnits = 0x1p40f;  // in 1

// (max - score) where a weight above 0 may go with it; 0 for the others and NaN.
inline float BelowMax(float score, float max) {
  const float below = max - score;
  return below < 128.0f ? below : 0.0f;
}

// One token's part of the sums. The factor is a power of two: only the conversion rounds.
inline FilterSums SumsOfToken(float score, float max) {
  const float weight = ExpOfNonPositive(score - max);
  return {.mass = static_cast<uint64_t>(weight * kFilterUnits),
          .spread = static_cast<uint64_t>(weight * BelowMax(score, max) * kFilterUnits)};
}

// Of all tokens of `logits`.
FilterSums SumsOfSlice(std::span<const float> logits, float temperature, float max, bool spread);

}  // namespace essor::kernels
