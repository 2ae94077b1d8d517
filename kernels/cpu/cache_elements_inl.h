// Elements of a KV cache as vectors of floats. For the ISA this is compiled for; see simd_inl.h.
//
// A quantised element is loaded as a number that is its value but for a factor, which is the same
// for all dims of a token and applied where it costs least (tile_factors_inl.h).
#pragma once

#include <cstdint>

#include "common/float8.h"
#include "kernels/cpu/simd_inl.h"

namespace essor::kernels {
namespace {  // NOLINT(google-build-namespaces): see simd_inl.h

template <typename T>
constexpr bool kHasFactor = false;
template <>
constexpr bool kHasFactor<Float8E4M3> = true;
template <>
constexpr bool kHasFactor<int8_t> = true;

// Of Float8E4M3: half precision has a longer mantissa and an exponent whose bias is 8 more, so that
// the bits of the one, moved into their places, are the other's but for this.
constexpr float kE4M3Factor = 256.0f;

ESSOR_INLINE F32 LoadElements(const float* p) { return Load(p); }
ESSOR_INLINE F32 LoadElements(const uint16_t* p) { return LoadBf16(p); }

#if defined(__AVX512F__)
ESSOR_INLINE F32 LoadElements(const int8_t* p) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return reinterpret_cast<F32>(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)));
}
// Sign-extended, the sign is in the right place after the shift, and once more below it. Of the
// NaNs only the one that is stored, 0x7f, is made one.
ESSOR_INLINE F32 LoadElements(const Float8E4M3* p) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  const __m256i half = _mm256_and_si256(_mm256_slli_epi16(_mm256_cvtepi8_epi16(bytes), 7),
                                        _mm256_set1_epi16(static_cast<int16_t>(0xbfff)));
  const __m256i nan = _mm256_cmpeq_epi16(half, _mm256_set1_epi16(0x3f80));
  return reinterpret_cast<F32>(_mm512_cvtph_ps(_mm256_or_si256(half, nan)));
}
#elif defined(__AVX2__)
ESSOR_INLINE F32 LoadElements(const int8_t* p) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return reinterpret_cast<F32>(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)));
}
ESSOR_INLINE F32 LoadElements(const Float8E4M3* p) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  const __m128i half = _mm_and_si128(_mm_slli_epi16(_mm_cvtepi8_epi16(bytes), 7),
                                     _mm_set1_epi16(static_cast<int16_t>(0xbfff)));
  const __m128i nan = _mm_cmpeq_epi16(half, _mm_set1_epi16(0x3f80));
  return reinterpret_cast<F32>(_mm256_cvtph_ps(_mm_or_si128(half, nan)));
}
#else
ESSOR_INLINE F32 LoadElements(const int8_t* p) {
  return F32{static_cast<float>(p[0]), static_cast<float>(p[1]), static_cast<float>(p[2]),
             static_cast<float>(p[3])};
}

struct E4M3Table {
  float values[256];
};
constexpr E4M3Table MakeE4M3Table() {
  E4M3Table table = {};
  for (uint32_t code = 0; code < 256; ++code) {
    const Float8E4M3 value{static_cast<uint8_t>(code)};
    // A constant expression may not compute with a NaN.
    table.values[code] = IsNan(value) ? ToFloat(value) : ToFloat(value) / kE4M3Factor;
  }
  return table;
}
constexpr E4M3Table kE4M3Table = MakeE4M3Table();

ESSOR_INLINE F32 LoadElements(const Float8E4M3* p) {
  return F32{kE4M3Table.values[p[0].bits], kE4M3Table.values[p[1].bits],
             kE4M3Table.values[p[2].bits], kE4M3Table.values[p[3].bits]};
}
#endif

// The first min(n, kLanes); the others are neither read, nor anything but zero in the vector.
ESSOR_INLINE F32 LoadElementsPartial(const float* p, uint32_t n) { return LoadPartial(p, n); }
template <typename T>
ESSOR_INLINE F32 LoadElementsPartial(const T* p, uint32_t n) {
  if (n >= kLanes) return LoadElements(p);
  T padded[kLanes] = {};
  for (uint32_t i = 0; i < n; ++i) padded[i] = p[i];
  return LoadElements(padded);
}

}  // namespace
}  // namespace essor::kernels
