// The 8-bit floats of model files (Open Compute Project, "OCP 8-bit Floating Point Specification"
// and "OCP Microscaling Formats"), as storage types, and their exact conversions.
#pragma once

#include <bit>
#include <cstdint>
#include <limits>

namespace essor {

// 1 sign, 4 exponent (bias 7), 3 mantissa bits. No infinity; the largest value is 448. A NaN is
// all ones after the sign (0x7f, 0xff), nothing else is.
struct Float8E4M3 {
  uint8_t bits;
};

// 8 exponent bits (bias 127) and nothing else: powers of two from 2^-127; 0xff is NaN.
struct Float8E8M0 {
  uint8_t bits;
};

constexpr bool IsNan(Float8E4M3 value) { return (value.bits & 0x7fu) == 0x7fu; }

constexpr float ToFloat(Float8E4M3 value) {
  const uint32_t magnitude = value.bits & 0x7fu;
  const bool negative = (value.bits & 0x80u) != 0;
  if (IsNan(value)) return std::numeric_limits<float>::quiet_NaN();
  // The exponent's bias is 120 less than float's; a subnormal is its mantissa times 2^-9.
  const float result = magnitude < 8 ? static_cast<float>(magnitude) * 0x1p-9f
                                     : std::bit_cast<float>((magnitude << 20) + (120u << 23));
  return negative ? -result : result;
}

// Bits of the same value as bfloat16: exact, since that has a wider exponent and a longer mantissa.
constexpr uint16_t BFloat16BitsOf(Float8E4M3 value) {
  return static_cast<uint16_t>(std::bit_cast<uint32_t>(ToFloat(value)) >> 16);
}

constexpr float ToFloat(Float8E8M0 value) {
  if (value.bits == 0xff) return std::numeric_limits<float>::quiet_NaN();
  // 2^-127 is a subnormal float.
  return std::bit_cast<float>(value.bits == 0 ? 0x00400000u : uint32_t{value.bits} << 23);
}

}  // namespace essor
