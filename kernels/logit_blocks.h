// Passing over a vocabulary in blocks, in loops that become vector code; for the sampling sources.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

namespace essor::kernels {

// This many tokens are looked at at once.
inline constexpr size_t kLogitBlock = 64;

// A logit below which no logit / temperature reaches `score_min`: the quotient's rounding allowed
// for. Where extreme values leave no such number, -infinity.
inline float LogitBound(float score_min, float temperature) {
  const float logit = score_min * temperature;
  const float bound = logit - std::abs(logit) * 1e-6f;
  return std::isfinite(bound) ? bound : -std::numeric_limits<float>::infinity();
}

// Whether any of the (up to kLogitBlock) logits from `begin` reaches `bound`; NaN does not.
inline bool BlockReaches(std::span<const float> logits, size_t begin, float bound) {
  uint32_t reached = 0;
  if (logits.size() - begin >= kLogitBlock) {
    const float* block = logits.data() + begin;
    for (size_t j = 0; j < kLogitBlock; ++j) reached |= block[j] >= bound ? 1u : 0u;
  } else {
    for (const float logit : logits.subspan(begin)) reached |= logit >= bound ? 1u : 0u;
  }
  return reached != 0;
}

}  // namespace essor::kernels
