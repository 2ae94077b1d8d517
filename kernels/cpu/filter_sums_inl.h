// The integer sums of kernels/filtered_sampling.h, for the ISA this is compiled for. The same
// operations in the same order as kernels/filter_sums.h has them for one token, so the same
// integers; no Fma for that reason.
#pragma once

#include <cstdint>

#include "kernels/cpu/row_kernels_inl.h"
#include "kernels/cpu/simd_inl.h"
#include "kernels/filtered_sampling.h"

namespace essor::kernels {
namespace {  // NOLINT(google-build-namespaces): see simd_inl.h

// As its scalar version in kernels/exp_of_non_positive.h.
ESSOR_INLINE F32 ExpOfNonPositiveLanes(F32 x) {
  const F32 round = Set1(12582912.0f);
  const F32 unbounded = x * Set1(1.44269504f);
  const F32 scaled = Select(unbounded > Set1(-127.0f), unbounded, Set1(-127.0f));
  const F32 shifted = scaled + round;
  const F32 r = scaled - (shifted - round);
  F32 p = Set1(1.52527338e-5f);
  p = p * r + Set1(1.54035304e-4f);
  p = p * r + Set1(1.33335581e-3f);
  p = p * r + Set1(9.61812911e-3f);
  p = p * r + Set1(5.55041087e-2f);
  p = p * r + Set1(2.40226507e-1f);
  p = p * r + Set1(6.93147181e-1f);
  p = p * r + Set1(1.0f);
  return p * AsFloats((AsInts(shifted) + (127 - 0x4b400000)) << 23);
}

// Adds terms from 0 to 1 in units of 2^-40, each rounded down. Two integers of 32 bits stand for
// each, because those are what every processor converts to in vectors: its first 20 bits after the
// point, and the next 20. Neither split nor conversion rounds, but for the last.
class TermSum {
 public:
  ESSOR_INLINE void Add(F32 terms) {
    const F32 scaled = terms * Set1(0x1p20f);
    const I32 whole = __builtin_convertvector(scaled, I32);
    high_ += whole;
    low_ += __builtin_convertvector((scaled - ToFloats(whole)) * Set1(0x1p20f), I32);
  }
  // After at most 1024 calls of Add().
  ESSOR_INLINE uint64_t Take() {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < kLanes; ++i) {
      sum += (static_cast<uint64_t>(high_[i]) << 20) + static_cast<uint64_t>(low_[i]);
    }
    high_ = low_ = I32{};
    return sum;
  }

 private:
  I32 high_{};
  I32 low_{};
};

FilterSums FilterSumsOfRow(const float* logits, uint32_t width, const RowSums& row) {
  constexpr uint32_t kRun = 1024 * kLanes;
  const F32 temperature = Set1(row.temperature);
  const F32 max = Set1(row.max);
  FilterSums sums;
  TermSum mass;
  TermSum spread;
  for (uint32_t run = 0; run < width; run += kRun) {
    const uint32_t end = width - run < kRun ? width : run + kRun;
    for (uint32_t i = run; i < end; i += kLanes) {
      const uint32_t n = end - i < kLanes ? end - i : kLanes;
      const F32 logit = n == kLanes ? Load(logits + i) : LoadLogits(logits + i, n);
      const F32 score = logit / temperature;
      const F32 weight = ExpOfNonPositiveLanes(score - max);
      mass.Add(weight);
      if (!row.spread) continue;
      const F32 below = max - score;
      spread.Add(weight * Select(below < Set1(128.0f), below, F32{}));
    }
    sums.mass += mass.Take();
    sums.spread += spread.Take();
  }
  return sums;
}

}  // namespace
}  // namespace essor::kernels
