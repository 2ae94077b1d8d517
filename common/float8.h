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

// To nearest, ties to even. Finite values beyond the largest become the largest (as OCP's
// saturating conversion has it), and so that what is broken stays visible infinities and NaN become
// 0x7f.
constexpr Float8E4M3 ToFloat8E4M3(float value) {
  constexpr uint32_t kInfinity = 0x7f800000;
  constexpr uint32_t kLargest = std::bit_cast<uint32_t>(448.0f);
  constexpr uint32_t kLeastNormal = std::bit_cast<uint32_t>(0x1p-6f);
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude >= kInfinity) return {0x7f};
  const auto sign = static_cast<uint8_t>(bits >> 24 & 0x80u);
  if (magnitude >= kLargest) return {static_cast<uint8_t>(sign | 0x7eu)};
  uint32_t code = 0;
  if (magnitude >= kLeastNormal) {
    // A carry out of the mantissa goes to the exponent, whose bias is 120 less.
    code = ((magnitude + 0x7ffffu + (magnitude >> 20 & 1u)) >> 20) - (120u << 3);
  } else {
    // Beside 2^14 a float's last bit is 2^-9, the unit of the subnormals.
    code = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0x1p14f) -
           std::bit_cast<uint32_t>(0x1p14f);
  }
  return {static_cast<uint8_t>(sign | code)};
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
