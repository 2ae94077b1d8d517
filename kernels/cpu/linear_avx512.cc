// Compiled with AVX-512 F, BW, VL, DQ, VBMI, BF16 and VNNI; called only where the processor has
// them.
#include <immintrin.h>

#include <cstring>

#include "common/float8.h"
#include "kernels/cpu/linear_kernels_inl.h"
#include "kernels/cpu/nibble_values.h"

namespace essor::kernels {
namespace {

// The bytes of the bf16 of the 128 e4m3 magnitudes.
struct Fp8Tables {
  alignas(64) uint8_t low[128];
  alignas(64) uint8_t high[128];
};
constexpr Fp8Tables MakeFp8Tables() {
  Fp8Tables tables{};
  for (uint32_t code = 0; code < 128; ++code) {
    const uint16_t bits = BFloat16BitsOf(Float8E4M3{static_cast<uint8_t>(code)});
    tables.low[code] = static_cast<uint8_t>(bits & 0xffu);
    tables.high[code] = static_cast<uint8_t>(bits >> 8);
  }
  return tables;
}
constexpr Fp8Tables kFp8 = MakeFp8Tables();

// The values twice: a look-up takes five bits of an index, the fifth of which belongs to the next
// code.
template <WeightFormat kFormat>
struct TwoNibbleTables {
  alignas(64) NibbleTable tables[2] = {MakeNibbleTable(kFormat), MakeNibbleTable(kFormat)};
};
template <WeightFormat kFormat>
constexpr TwoNibbleTables<kFormat> kNibbles;

struct Avx512 {
  static constexpr int kLanes = 16;
  // 12 x 2 sums, 2 weights and the broadcast x fill 27 of 32 registers; quantised blocks need an
  // integer and a float sum each.
  static constexpr int kMaxRows = 12;
  static constexpr int kMaxQuantRows = 6;
  static constexpr int Vectors(int /*rows*/, bool /*quant*/) { return 2; }

  using F = __m512;
  using I = __m512i;

  static F Zero() { return _mm512_setzero_ps(); }
  static F Load(const float* p) { return _mm512_loadu_ps(p); }
  static void Store(float* p, F f) { _mm512_storeu_ps(p, f); }
  static F Set(float s) { return _mm512_set1_ps(s); }
  static F Fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F Mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F Sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F Div(F a, F b) { return _mm512_div_ps(a, b); }
  static F Max(F a, F b) { return _mm512_max_ps(a, b); }
  static F Min(F a, F b) { return _mm512_min_ps(a, b); }
  static F Round(F a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  static F Exp2Int(F n) { return _mm512_scalef_ps(_mm512_set1_ps(1.0f), n); }
  static F Silu(F x) { return micro::SiluPolynomial<Avx512>(x); }
  static F LoadHalf(const std::byte* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }

  static I LoadI(const std::byte* p) { return _mm512_loadu_si512(p); }
  static I SetI(int32_t s) { return _mm512_set1_epi32(s); }
  static F ToFloat(I i) { return _mm512_cvtepi32_ps(i); }

  static F DotBF16(F sum, I w, I x) {
    // The vector types of bf16 are as wide as those of int32; only the name differs.
    return _mm512_dpbf16_ps(sum, (__m512bh)w, (__m512bh)x);
  }

  static void DecodeFp8(I w, I& first, I& second) {
    const I sign = _mm512_set1_epi8(-128);
    const I even = _mm512_set1_epi16(0x00ff);
    // Hidden from the compiler, so that it reads the tables as operands: kept in registers they
    // push sums of the caller's loop out to memory (clang, 12 rows: 3.7 us instead of 3.1).
    const Fp8Tables* tables = &kFp8;
    asm volatile("" : "+r"(tables));
    // The look-up takes seven bits of an index and passes over the sign.
    const I low =
        _mm512_permutex2var_epi8(LoadI(Bytes(tables->low)), w, LoadI(Bytes(tables->low + 64)));
    const I high =
        _mm512_permutex2var_epi8(LoadI(Bytes(tables->high)), w, LoadI(Bytes(tables->high + 64)));
    constexpr int kOrAnd = 0xf8;   // a | (b & c)
    constexpr int kSelect = 0xca;  // a ? b : c
    const I with_sign = _mm512_ternarylogic_epi32(high, w, sign, kOrAnd);
    first = _mm512_ternarylogic_epi32(even, low, _mm512_slli_epi16(with_sign, 8), kSelect);
    second = _mm512_ternarylogic_epi32(even, _mm512_srli_epi16(low, 8), with_sign, kSelect);
  }

  template <WeightFormat kFormat, int kPair>
  static I DecodeNibbles(I w) {
    const I table = _mm512_load_si512(kNibbles<kFormat>.tables);
    return _mm512_permutexvar_epi16(_mm512_srli_epi16(w, 4 * kPair), table);
  }
  static F LoadBF16(const std::byte* p) {
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
  }

  static I InitQ8(int32_t minus_128_sum) { return SetI(minus_128_sum); }
  static I DotQ8(I sum, I w, I x) { return _mm512_dpbusd_epi32(sum, w, x); }
  static I LowNibbles(I w) { return _mm512_and_si512(w, _mm512_set1_epi8(0x0f)); }
  static I HighNibbles(I w) { return LowNibbles(_mm512_srli_epi16(w, 4)); }
  static I DotQ4(I sum, I nibbles, I x) { return _mm512_dpbusd_epi32(sum, nibbles, x); }

  static void RoundBF16(const float* x, uint32_t* words) {
    const __m512bh rounded = _mm512_cvtne2ps_pbh(Load(x + 16), Load(x));
    _mm512_storeu_si512(words, (__m512i)rounded);
  }

  // Without the sign, floats order like their bits, and NaN comes out above everything.
  static float AbsMax(const float* x) {
    const I mask = _mm512_set1_epi32(0x7fffffff);
    const I a = _mm512_and_si512(_mm512_castps_si512(Load(x)), mask);
    const I b = _mm512_and_si512(_mm512_castps_si512(Load(x + 16)), mask);
    const int32_t bits = _mm512_reduce_max_epi32(_mm512_max_epi32(a, b));
    float amax;
    std::memcpy(&amax, &bits, sizeof(amax));
    return amax;
  }

  static int32_t Quantise(const float* x, float inverse, uint32_t* words) {
    const F scale = Set(inverse);
    const I a = _mm512_cvtps_epi32(Mul(Load(x), scale));
    const I b = _mm512_cvtps_epi32(Mul(Load(x + 16), scale));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(words), _mm512_cvtsepi32_epi8(a));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(words + 4), _mm512_cvtsepi32_epi8(b));
    return _mm512_reduce_add_epi32(_mm512_add_epi32(a, b));
  }

 private:
  static const std::byte* Bytes(const uint8_t* from) {
    return reinterpret_cast<const std::byte*>(from);
  }
};

}  // namespace

const LinearKernels& Avx512LinearKernels() {
  static const LinearKernels kernels = micro::MakeLinearKernels<Avx512>();
  return kernels;
}

}  // namespace essor::kernels
