// Vectors of Gumbel draws and the sampled argmax, for the ISA this is compiled for; see
// kernels/gumbel.h for what is computed. The same operations in the same order as its scalar
// version, so the same bits; no Fma for that reason.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/row_kernels_inl.h"
#include "kernels/cpu/simd_inl.h"
#include "kernels/gumbel.h"

namespace essor::kernels {
namespace {  // NOLINT(google-build-namespaces): see simd_inl.h

struct WideProduct {
  U32 high;
  U32 low;
};

// The 64-bit products of the lanes with one multiplier.
ESSOR_INLINE WideProduct Multiply(U32 a, uint32_t multiplier) {
  WideProduct product;
#if defined(__AVX512F__)
  const __m512i m = _mm512_set1_epi64(multiplier);
  const __m512i even = _mm512_mul_epu32(reinterpret_cast<__m512i>(a), m);
  const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(reinterpret_cast<__m512i>(a), 32), m);
  product.high =
      reinterpret_cast<U32>(_mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd));
  product.low =
      reinterpret_cast<U32>(_mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32)));
#elif defined(__AVX2__)
  const __m256i m = _mm256_set1_epi64x(multiplier);
  const __m256i even = _mm256_mul_epu32(reinterpret_cast<__m256i>(a), m);
  const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(reinterpret_cast<__m256i>(a), 32), m);
  product.high = reinterpret_cast<U32>(_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa));
  product.low = reinterpret_cast<U32>(_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa));
#else
  for (uint32_t i = 0; i < kLanes; ++i) {
    const uint64_t wide = static_cast<uint64_t>(a[i]) * multiplier;
    product.high[i] = static_cast<uint32_t>(wide >> 32);
    product.low[i] = static_cast<uint32_t>(wide);
  }
#endif
  return product;
}

// Philox4x32-10 of kLanes consecutive blocks; word w of block l is words[w][l].
ESSOR_INLINE void PhiloxBlocks(uint32_t first_block, const RowSampling& sampling, U32 (&words)[4]) {
  words[0] = reinterpret_cast<U32>(Iota()) + first_block;
  words[1] = U32{} + static_cast<uint32_t>(sampling.position);
  words[2] = U32{} + static_cast<uint32_t>(sampling.position >> 32);
  words[3] = U32{};
  uint32_t key0 = static_cast<uint32_t>(sampling.seed);
  uint32_t key1 = static_cast<uint32_t>(sampling.seed >> 32);
  for (uint32_t round = 0; round < kPhiloxRounds; ++round) {
    const WideProduct product0 = Multiply(words[0], kPhiloxMultiplier0);
    const WideProduct product1 = Multiply(words[2], kPhiloxMultiplier1);
    words[0] = product1.high ^ words[1] ^ key0;
    words[1] = product1.low;
    words[2] = product0.high ^ words[3] ^ key1;
    words[3] = product0.low;
    key0 += kPhiloxKeyStep0;
    key1 += kPhiloxKeyStep1;
  }
}

ESSOR_INLINE F32 TwiceAtanh(F32 s) {
  const F32 square = s * s;
  F32 sum = Set1(kAtanhSeries[6]);
#pragma GCC unroll 6
  for (int i = 5; i >= 0; --i) sum = sum * square + Set1(kAtanhSeries[i]);
  return (s + s) * sum;
}

ESSOR_INLINE F32 Log(F32 y) {
  const I32 bits = AsInts(y);
  const I32 exponent = (bits - static_cast<int32_t>(kSqrtHalfBits)) >> 23;
  const F32 m = AsFloats(bits - (exponent << 23));
  return ToFloats(exponent) * Set1(kLn2) + TwiceAtanh((m - 1.0f) / (m + 1.0f));
}

ESSOR_INLINE F32 GumbelOfWords(U32 words) {
  const I32 x = reinterpret_cast<I32>(words);
  const I32 low_half = x >= 0;  // u < 1/2
  const F32 u = (ToFloats(Select(low_half, x, ~x)) + 0.5f) * 0x1p-32f;
  // Of the scalar version's two ways to -log(1 - u) each lane takes one; the other is computed on
  // values that are harmless there.
  const F32 exponential = Select(low_half, TwiceAtanh(u / (2.0f - u)), -Log(u));
  return -Log(exponential);
}

// Vectors of ids are aligned to kLanes, as the generator's groups are, so the first one may begin
// before `begin`: lanes outside [begin, end) count as impossible.
Candidate SampledBest(const float* logits, const RowSampling& sampling, uint32_t first_id,
                      uint32_t begin, uint32_t end) {
  if (begin >= end) return {kMinusInfinity, first_id + begin};
  constexpr uint32_t kBlocks = kGumbelGroup / 4;
  const F32 temperature = Set1(sampling.temperature);
  const int64_t id_end = static_cast<int64_t>(first_id) + end;
  // One for each word: only so are the ids that a lane sees ascending, which ties rely on.
  LaneBest best[4];
  for (int64_t group = (first_id + begin) / kGumbelGroup; group * kGumbelGroup < id_end; ++group) {
    for (uint32_t l = 0; l < kBlocks; l += kLanes) {
      U32 words[4];
      PhiloxBlocks(static_cast<uint32_t>(group) * kBlocks + l, sampling, words);
#pragma GCC unroll 4
      for (uint32_t w = 0; w < 4; ++w) {
        const int64_t column = group * kGumbelGroup + w * kBlocks + l - first_id;
        if (column >= end || column + kLanes <= begin) continue;
        const I32 columns = Iota() + static_cast<int32_t>(column);
        F32 logit;
        if (column >= begin && column + kLanes <= end) {
          logit = Load(logits + column);
        } else {
          for (uint32_t i = 0; i < kLanes; ++i) {
            const int64_t at = column + i;
            logit[i] = at >= begin && at < end ? logits[at] : kMinusInfinity;
          }
        }
        best[w].Take(logit / temperature + GumbelOfWords(words[w]), columns);
      }
    }
  }
  return BestLane(best, 4, first_id, begin);
}

}  // namespace
}  // namespace essor::kernels
