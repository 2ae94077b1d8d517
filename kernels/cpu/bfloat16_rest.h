// The second half of an activation that is used as the sum of two bfloat16 values.
//
// Static: also included by files compiled for instruction sets that the machine may not have (see
// linear_kernels.h).
#pragma once

#include <bit>
#include <cstdint>

namespace essor::kernels {

// rest[i] = x[i] minus x[i] rounded to bfloat16 (to nearest, ties to even); exact in float32.
static inline void RestOfBFloat16(const float* x, uint32_t count, float* rest) {
  for (uint32_t i = 0; i < count; ++i) {
    const auto bits = std::bit_cast<uint32_t>(x[i]);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
    rest[i] = x[i] - std::bit_cast<float>(rounded);
  }
}

}  // namespace essor::kernels
