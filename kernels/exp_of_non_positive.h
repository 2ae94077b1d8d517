// e^x for the weights of sampling.
#pragma once

#include <bit>
#include <cstdint>

namespace essor::kernels {

// e^x for x <= 0; 0 below e^-88 and for NaN. Branch-free and without libm, so that loops of it
// become vector code and, compiled without contraction, give the same bits on every processor. 2^n
// comes from the exponent field, 2^r with |r| <= 1/2 from the Taylor series of exp(r ln 2) to
// degree 7 (relative error below 4e-7).
inline float ExpOfNonPositive(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float unbounded = x * 1.44269504f;
  const float scaled = unbounded > -127.0f ? unbounded : -127.0f;
  const float shifted = scaled + kRound;
  const float r = scaled - (shifted - kRound);
  float p = 1.52527338e-5f;
  p = p * r + 1.54035304e-4f;
  p = p * r + 1.33335581e-3f;
  p = p * r + 9.61812911e-3f;
  p = p * r + 5.55041087e-2f;
  p = p * r + 2.40226507e-1f;
  p = p * r + 6.93147181e-1f;
  p = p * r + 1.0f;
  const uint32_t exponent = (std::bit_cast<uint32_t>(shifted) + (127u - 0x4b400000u)) << 23;
  return p * std::bit_cast<float>(exponent);
}

}  // namespace essor::kernels
