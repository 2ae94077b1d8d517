// Vectors of the processor this file is compiled for: 16 floats with AVX-512, 8 with AVX2, 4
// otherwise. For files compiled once per ISA with that ISA's flags and -ffp-contract=off. All names
// have internal linkage: a function compiled with AVX-512 must never be merged by the linker with
// its namesake for older processors. For the same reason no inline function of another header may
// be used where the compiler might not inline it.
#pragma once

#include <cstdint>

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace essor::kernels {
namespace {  // NOLINT(google-build-namespaces): see above

#if defined(__AVX512F__)
constexpr uint32_t kLanes = 16;
#elif defined(__AVX2__)
constexpr uint32_t kLanes = 8;
#else
constexpr uint32_t kLanes = 4;
#endif

// Operators (+ - * / & | ^ << >> and comparisons, which give lanes of 0 or -1) are the compiler's.
typedef float F32 __attribute__((vector_size(kLanes * 4)));
typedef int32_t I32 __attribute__((vector_size(kLanes * 4)));
typedef uint32_t U32 __attribute__((vector_size(kLanes * 4)));
typedef uint16_t U16 __attribute__((vector_size(kLanes * 2)));

#define ESSOR_INLINE inline __attribute__((always_inline))

// Unaligned.
ESSOR_INLINE F32 Load(const float* p) {
  F32 v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}

ESSOR_INLINE void Store(float* p, F32 v) { __builtin_memcpy(p, &v, sizeof(v)); }

ESSOR_INLINE F32 AsFloats(I32 v) { return reinterpret_cast<F32>(v); }
ESSOR_INLINE I32 AsInts(F32 v) { return reinterpret_cast<I32>(v); }

#if defined(__AVX512F__)
ESSOR_INLINE F32 Set1(float x) { return reinterpret_cast<F32>(_mm512_set1_ps(x)); }
ESSOR_INLINE I32 Set1(int32_t x) { return reinterpret_cast<I32>(_mm512_set1_epi32(x)); }
// a * b + c, rounded once.
ESSOR_INLINE F32 Fma(F32 a, F32 b, F32 c) {
  return reinterpret_cast<F32>(_mm512_fmadd_ps(a, b, c));
}
#elif defined(__AVX2__)
ESSOR_INLINE F32 Set1(float x) { return reinterpret_cast<F32>(_mm256_set1_ps(x)); }
ESSOR_INLINE I32 Set1(int32_t x) { return reinterpret_cast<I32>(_mm256_set1_epi32(x)); }
ESSOR_INLINE F32 Fma(F32 a, F32 b, F32 c) {
  return reinterpret_cast<F32>(_mm256_fmadd_ps(a, b, c));
}
#else
ESSOR_INLINE F32 Set1(float x) { return F32{x, x, x, x}; }
ESSOR_INLINE I32 Set1(int32_t x) { return I32{x, x, x, x}; }
// Rounded twice here: the processors this is for have no instruction that rounds once.
ESSOR_INLINE F32 Fma(F32 a, F32 b, F32 c) { return a * b + c; }
#endif

ESSOR_INLINE I32 Iota() {
#if defined(__AVX512F__)
  return I32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#elif defined(__AVX2__)
  return I32{0, 1, 2, 3, 4, 5, 6, 7};
#else
  return I32{0, 1, 2, 3};
#endif
}

// The first min(n, kLanes) lanes; the others are neither read nor written, and zero in the vector.
ESSOR_INLINE F32 LoadPartial(const float* p, uint32_t n) {
  if (n >= kLanes) return Load(p);
#if defined(__AVX512F__)
  return reinterpret_cast<F32>(_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p));
#elif defined(__AVX2__)
  const I32 mask = Iota() < Set1(static_cast<int32_t>(n));
  return reinterpret_cast<F32>(_mm256_maskload_ps(p, reinterpret_cast<__m256i>(mask)));
#else
  F32 v = {};
  for (uint32_t i = 0; i < n; ++i) v[i] = p[i];
  return v;
#endif
}

ESSOR_INLINE void StorePartial(float* p, F32 v, uint32_t n) {
  if (n >= kLanes) {
    Store(p, v);
    return;
  }
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), v);
#elif defined(__AVX2__)
  const I32 mask = Iota() < Set1(static_cast<int32_t>(n));
  _mm256_maskstore_ps(p, reinterpret_cast<__m256i>(mask), v);
#else
  for (uint32_t i = 0; i < n; ++i) p[i] = v[i];
#endif
}

// Lanes of a where the mask (0 or -1) is set, else of b.
ESSOR_INLINE F32 Select(I32 mask, F32 a, F32 b) { return mask ? a : b; }
ESSOR_INLINE I32 Select(I32 mask, I32 a, I32 b) { return mask ? a : b; }

// Of a NaN in either operand, b is the result (as the x86 instruction has it).
ESSOR_INLINE F32 Max(F32 a, F32 b) {
#if defined(__AVX512F__)
  return reinterpret_cast<F32>(_mm512_max_ps(a, b));
#elif defined(__AVX2__)
  return reinterpret_cast<F32>(_mm256_max_ps(a, b));
#else
  return Select(a > b, a, b);
#endif
}

// Bit i is lane i of the mask.
ESSOR_INLINE uint32_t MaskBits(I32 mask) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask(reinterpret_cast<__m512i>(mask));
#elif defined(__AVX2__)
  return static_cast<uint32_t>(_mm256_movemask_ps(reinterpret_cast<__m256>(mask)));
#else
  return (mask[0] & 1u) | (mask[1] & 2u) | (mask[2] & 4u) | (mask[3] & 8u);
#endif
}

// The sum of the lanes: neighbours at distance kLanes / 2, then / 4, ...
ESSOR_INLINE float ReduceAdd(F32 v) {
  float lanes[kLanes];
  Store(lanes, v);
  for (uint32_t half = kLanes / 2; half > 0; half /= 2) {
    for (uint32_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

ESSOR_INLINE float ReduceMax(F32 v) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps(v);
#else
  float lanes[kLanes];
  Store(lanes, v);
  for (uint32_t half = kLanes / 2; half > 0; half /= 2) {
    for (uint32_t i = 0; i < half; ++i) {
      lanes[i] = lanes[i] > lanes[i + half] ? lanes[i] : lanes[i + half];
    }
  }
  return lanes[0];
#endif
}

ESSOR_INLINE F32 ToFloats(I32 v) { return __builtin_convertvector(v, F32); }

// kLanes bfloat16 values as floats.
ESSOR_INLINE F32 LoadBf16(const uint16_t* p) {
  U16 v;
  __builtin_memcpy(&v, p, sizeof(v));
#if defined(__AVX512F__)  // the compilers widen in halves when left alone
  const U32 wide = reinterpret_cast<U32>(_mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(v)));
#elif defined(__AVX2__)
  const U32 wide = reinterpret_cast<U32>(_mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(v)));
#else
  const U32 wide = __builtin_convertvector(v, U32);
#endif
  return reinterpret_cast<F32>(wide << 16);
}

// To bfloat16, to nearest, ties to even, NaN kept: the bits of ToBFloat16 in common/float16.h.
ESSOR_INLINE void StoreBf16(uint16_t* p, F32 v) {
  const U32 bits = reinterpret_cast<U32>(v);
  const U32 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const U32 quiet_nan = (bits >> 16) | 0x40u;
  const U32 result = (v != v) ? quiet_nan : rounded;
  const U16 narrow = __builtin_convertvector(result, U16);
  __builtin_memcpy(p, &narrow, sizeof(narrow));
}

// 2^x for x <= 0 (up to 126 works too); below -126.5 gives 0, NaN gives NaN.
//
// x = n + r with n an integer and |r| <= 1/2; 2^r by the Taylor series of exp(r ln 2) to degree 7:
// truncation (ln2 / 2)^8 / 8! < 5.2e-9 relative. Each of the 7 multiply-adds rounds a value below
// 1.42 that the following ones scale by |r| <= 1/2, so the rounding is below 2^-24 (1 + 1/2 + ...)
// * sqrt(2): together at most 2 ulp, 2.4e-7 relative. x - n is exact. Exact at x = 0.
ESSOR_INLINE F32 Exp2(F32 x) {
  x = Max(Set1(-127.0f), x);
  // Adding 1.5 * 2^23 leaves round(x) in the low mantissa bits.
  const F32 kRound = Set1(12582912.0f);
  const F32 shifted = x + kRound;
  const F32 r = x - (shifted - kRound);
  F32 p = Set1(1.52527338e-5f);         // ln(2)^7 / 7!
  p = Fma(p, r, Set1(1.54035304e-4f));  // ln(2)^6 / 6!
  p = Fma(p, r, Set1(1.33335581e-3f));
  p = Fma(p, r, Set1(9.61812911e-3f));
  p = Fma(p, r, Set1(5.55041087e-2f));
  p = Fma(p, r, Set1(2.40226507e-1f));
  p = Fma(p, r, Set1(6.93147181e-1f));
  p = Fma(p, r, Set1(1.0f));
  // 2^n from the exponent field; n = -127 gives the bits of 0.
  const I32 scale = (AsInts(shifted) + (127 - 0x4b400000)) << 23;
  return p * AsFloats(scale);
}

constexpr float kLog2E = 1.44269504f;

// e^x for x <= 0, likewise. The rounding of the product and of log2(e) itself changes the exponent
// by up to 1.2e-7 |x| absolute, which is the relative error it adds: 1.2e-6 at x = -10.
ESSOR_INLINE F32 Exp(F32 x) { return Exp2(x * Set1(kLog2E)); }

// 1 / (1 + e^-x), from the exponential of -|x|, which cannot overflow; NaN stays NaN.
ESSOR_INLINE F32 Sigmoid(F32 x) {
  const I32 negative = x < F32{};
  const F32 e = Exp(Select(negative, x, -x));
  return Select(negative, e, Set1(1.0f)) / (Set1(1.0f) + e);
}

// Lanes of a and b in turn: a0 b0 a1 b1 ...; the lower and the upper half of the result.
ESSOR_INLINE F32 InterleaveLow(F32 a, F32 b) {
#if defined(__AVX512F__)
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
#elif defined(__AVX2__)
  return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
#else
  return __builtin_shufflevector(a, b, 0, 4, 1, 5);
#endif
}

ESSOR_INLINE F32 InterleaveHigh(F32 a, F32 b) {
#if defined(__AVX512F__)
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15,
                                 31);
#elif defined(__AVX2__)
  return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#else
  return __builtin_shufflevector(a, b, 2, 6, 3, 7);
#endif
}

// The inverse: the even (or odd) lanes of the 2 * kLanes lanes a, b.
ESSOR_INLINE F32 EvenLanes(F32 a, F32 b) {
#if defined(__AVX512F__)
  return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
#elif defined(__AVX2__)
  return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14);
#else
  return __builtin_shufflevector(a, b, 0, 2, 4, 6);
#endif
}

ESSOR_INLINE F32 OddLanes(F32 a, F32 b) {
#if defined(__AVX512F__)
  return __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
#elif defined(__AVX2__)
  return __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
#else
  return __builtin_shufflevector(a, b, 1, 3, 5, 7);
#endif
}

// rows[i][j] <-> rows[j][i]. Interleaving row i with row i + kLanes / 2 for all i moves one bit of
// the row number into the lane number; log2(kLanes) times swaps the two.
ESSOR_INLINE void Transpose(F32 (&rows)[kLanes]) {
#pragma GCC unroll 4
  for (uint32_t step = 1; step < kLanes; step *= 2) {
    F32 next[kLanes];
#pragma GCC unroll 8
    for (uint32_t i = 0; i < kLanes / 2; ++i) {
      next[2 * i] = InterleaveLow(rows[i], rows[i + kLanes / 2]);
      next[2 * i + 1] = InterleaveHigh(rows[i], rows[i + kLanes / 2]);
    }
#pragma GCC unroll 16
    for (uint32_t i = 0; i < kLanes; ++i) rows[i] = next[i];
  }
}

}  // namespace
}  // namespace essor::kernels
