// The 4-bit numbers of model files, as storage types, and their exact conversions.
#pragma once

#include <bit>
#include <cstdint>

namespace essor {

// 1 sign, 2 exponent (bias 1), 1 mantissa bits: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives
// (Open Compute Project, "OCP Microscaling Formats", section 5.3.3). No NaN, no infinity.
struct Float4E2M1 {
  uint8_t bits;  // below 16
};

// -8 .. 7, stored with 8 added (compressed-tensors, format pack-quantized).
struct OffsetInt4 {
  uint8_t bits;  // below 16
};

constexpr float ToFloat(Float4E2M1 value) {
  const uint32_t magnitude = value.bits & 7u;
  // The exponent's bias is 126 less than float's; a subnormal is its mantissa times a half.
  const float result = magnitude < 2 ? static_cast<float>(magnitude) * 0.5f
                                     : std::bit_cast<float>((magnitude << 22) + (126u << 23));
  return (value.bits & 8u) != 0 ? -result : result;
}

constexpr float ToFloat(OffsetInt4 value) {
  return static_cast<float>(static_cast<int32_t>(value.bits) - 8);
}

}  // namespace essor
