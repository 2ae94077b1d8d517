#include "kernels/gumbel.h"

#include <bit>
#include <cstddef>
#include <iterator>

namespace essor::kernels {
namespace {

// 2 atanh(s) = log((1 + s) / (1 - s)).
float TwiceAtanh(float s) {
  const float square = s * s;
  float sum = kAtanhSeries[std::size(kAtanhSeries) - 1];
  for (size_t i = std::size(kAtanhSeries) - 1; i-- > 0;) sum = sum * square + kAtanhSeries[i];
  return (s + s) * sum;
}

// log(y) of a positive normal y: y = 2^e m with m in [sqrt(1/2), sqrt(2)).
float Log(float y) {
  const uint32_t bits = std::bit_cast<uint32_t>(y);
  const int32_t exponent = static_cast<int32_t>(bits - kSqrtHalfBits) >> 23;
  const float m = std::bit_cast<float>(bits - (static_cast<uint32_t>(exponent) << 23));
  return static_cast<float>(exponent) * kLn2 + TwiceAtanh((m - 1.0f) / (m + 1.0f));
}

float GumbelOfWord(uint32_t x) {
  constexpr float kScale = 0x1p-32f;
  float exponential;
  if (x < 0x80000000u) {  // u < 1/2: -log(1 - u) = 2 atanh(u / (2 - u))
    const float u = (static_cast<float>(static_cast<int32_t>(x)) + 0.5f) * kScale;
    exponential = TwiceAtanh(u / (2.0f - u));
  } else {  // 1 - u, exactly
    const float rest = (static_cast<float>(static_cast<int32_t>(~x)) + 0.5f) * kScale;
    exponential = -Log(rest);
  }
  return -Log(exponential);
}

}  // namespace

std::array<uint32_t, 4> Philox4x32(const std::array<uint32_t, 4>& counter,
                                   const std::array<uint32_t, 2>& key) {
  std::array<uint32_t, 4> c = counter;
  uint32_t key0 = key[0];
  uint32_t key1 = key[1];
  for (uint32_t round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t product0 = static_cast<uint64_t>(kPhiloxMultiplier0) * c[0];
    const uint64_t product1 = static_cast<uint64_t>(kPhiloxMultiplier1) * c[2];
    c = {static_cast<uint32_t>(product1 >> 32) ^ c[1] ^ key0, static_cast<uint32_t>(product1),
         static_cast<uint32_t>(product0 >> 32) ^ c[3] ^ key1, static_cast<uint32_t>(product0)};
    key0 += kPhiloxKeyStep0;
    key1 += kPhiloxKeyStep1;
  }
  return c;
}

float Gumbel(uint64_t seed, uint64_t position, uint32_t id) {
  const uint32_t block = id / kGumbelGroup * 16 + id % 16;
  const auto words =
      Philox4x32({block, static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), 0},
                 {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  return GumbelOfWord(words[id / 16 % 4]);
}

}  // namespace essor::kernels
