// Compiled with AVX2, FMA and F16C; called only where the processor has them.
#include <immintrin.h>

#include <cstring>

#include "kernels/cpu/linear_kernels_inl.h"
#include "kernels/cpu/nibble_values.h"

namespace essor::kernels {
namespace {

// The bytes of the values' bits.
template <WeightFormat kFormat>
struct NibbleBytes {
  alignas(16) uint8_t low[16];
  alignas(16) uint8_t high[16];

  constexpr NibbleBytes() : low(), high() {
    const NibbleTable table = MakeNibbleTable(kFormat);
    for (uint32_t code = 0; code < 16; ++code) {
      low[code] = static_cast<uint8_t>(table[code] & 0xffu);
      high[code] = static_cast<uint8_t>(table[code] >> 8);
    }
  }
};
template <WeightFormat kFormat>
constexpr NibbleBytes<kFormat> kNibbles;

struct Avx2 {
  static constexpr int kLanes = 8;
  // 16 registers: 4 x 2 sums, weights and x; quantised blocks hold an integer and a float sum.
  static constexpr int kMaxRows = 4;
  static constexpr int kMaxQuantRows = 2;
  static constexpr int Vectors(int rows, bool quant) { return rows == 1 && !quant ? 4 : 2; }

  using F = __m256;
  using I = __m256i;

  static F Zero() { return _mm256_setzero_ps(); }
  static F Load(const float* p) { return _mm256_loadu_ps(p); }
  static void Store(float* p, F f) { _mm256_storeu_ps(p, f); }
  static F Set(float s) { return _mm256_set1_ps(s); }
  static F Fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F Mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F Sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F Div(F a, F b) { return _mm256_div_ps(a, b); }
  static F Max(F a, F b) { return _mm256_max_ps(a, b); }
  static F Min(F a, F b) { return _mm256_min_ps(a, b); }
  static F Round(F a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static F Exp2Int(F n) {
    const I biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), SetI(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
  }
  static F Silu(F x) { return micro::SiluPolynomial<Avx2>(x); }
  static F LoadHalf(const std::byte* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }

  static I LoadI(const std::byte* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static I SetI(int32_t s) { return _mm256_set1_epi32(s); }
  static F ToFloat(I i) { return _mm256_cvtepi32_ps(i); }

  static F LowHalf(I pair) { return _mm256_castsi256_ps(_mm256_slli_epi32(pair, 16)); }
  static F HighHalf(I pair) {
    return _mm256_castsi256_ps(_mm256_and_si256(pair, SetI(static_cast<int32_t>(0xffff0000u))));
  }
  static F DotBF16(F sum, I w, I x) {
    return Fma(HighHalf(w), HighHalf(x), Fma(LowHalf(w), LowHalf(x), sum));
  }

  // bf16 is s eeeeeeee mmm0000, whose exponent is e4m3's plus 120: the low byte of a normal number
  // are the low four bits of e4m3, the high byte a function of the high four. Subnormals, whose
  // exponent bits are all zero, are a function of the mantissa.
  static void DecodeFp8(I w, I& first, I& second) {
    const I low_four = _mm256_and_si256(w, _mm256_set1_epi8(0x0f));
    const I high_four = HighNibbles(w);
    const I normal_low = _mm256_slli_epi16(low_four, 4);
    const I normal_high =
        _mm256_shuffle_epi8(Twice(_mm_setr_epi8(60, 61, 62, 63, 64, 65, 66, 67, -68, -67, -66, -65,
                                                -64, -63, -62, -61)),
                            high_four);
    const I sub_low = _mm256_shuffle_epi8(
        Twice(_mm_setr_epi8(0, 0, -128, -64, 0, 32, 64, 96, 0, 0, 0, 0, 0, 0, 0, 0)), low_four);
    const I sub_high = _mm256_or_si256(
        _mm256_shuffle_epi8(
            Twice(_mm_setr_epi8(0, 59, 59, 59, 60, 60, 60, 60, 0, 0, 0, 0, 0, 0, 0, 0)), low_four),
        _mm256_and_si256(w, _mm256_set1_epi8(-128)));
    const I subnormal =
        _mm256_cmpeq_epi8(_mm256_and_si256(w, _mm256_set1_epi8(0x78)), _mm256_setzero_si256());
    const I nan =
        _mm256_cmpeq_epi8(_mm256_and_si256(w, _mm256_set1_epi8(0x7f)), _mm256_set1_epi8(0x7f));
    const I low = _mm256_blendv_epi8(normal_low, sub_low, subnormal);
    // All ones in the exponent, and the mantissa of a NaN's code is not zero.
    const I high = _mm256_or_si256(_mm256_blendv_epi8(normal_high, sub_high, subnormal),
                                   _mm256_and_si256(nan, _mm256_set1_epi8(0x7f)));
    const I odd = _mm256_set1_epi16(static_cast<int16_t>(0xff00));
    first = _mm256_blendv_epi8(low, _mm256_slli_epi16(high, 8), odd);
    second = _mm256_blendv_epi8(_mm256_srli_epi16(low, 8), high, odd);
  }

  // Pairs 0 and 1 are the codes of the even bytes, 2 and 3 those of the odd ones.
  template <WeightFormat kFormat, int kPair>
  static I DecodeNibbles(I w) {
    const I codes = kPair % 2 == 0 ? LowNibbles(w) : HighNibbles(w);
    const I low = _mm256_shuffle_epi8(Twice(LoadTable(kNibbles<kFormat>.low)), codes);
    const I high = _mm256_shuffle_epi8(Twice(LoadTable(kNibbles<kFormat>.high)), codes);
    const I odd = _mm256_set1_epi16(static_cast<int16_t>(0xff00));
    return kPair < 2 ? _mm256_blendv_epi8(low, _mm256_slli_epi16(high, 8), odd)
                     : _mm256_blendv_epi8(_mm256_srli_epi16(low, 8), high, odd);
  }
  static F LoadBF16(const std::byte* p) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return LowHalf(_mm256_cvtepu16_epi32(halves));
  }

  // Signed weights: |w| * (x with w's sign), pairs of which stay below 2 * 128 * 127 < 2^15. x is
  // at least -127, so that its negation exists.
  static I InitQ8(int32_t /*minus_128_sum*/) { return _mm256_setzero_si256(); }
  static I DotQ8(I sum, I w, I x) {
    const I weight = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
    return DotQ4(sum, _mm256_abs_epi8(weight), _mm256_sign_epi8(x, weight));
  }
  static I LowNibbles(I w) { return _mm256_and_si256(w, _mm256_set1_epi8(0x0f)); }
  static I HighNibbles(I w) { return LowNibbles(_mm256_srli_epi16(w, 4)); }
  static I DotQ4(I sum, I nibbles, I x) {
    const I pairs = _mm256_maddubs_epi16(nibbles, x);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }

  // To nearest, ties to even; NaN keeps its upper bits and a quiet one. Result in the upper halves.
  static I RoundedBits(F f) {
    const I bits = _mm256_castps_si256(f);
    const I odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), SetI(1));
    const I rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, SetI(0x7fff)));
    const I quiet = _mm256_or_si256(bits, SetI(0x400000));
    const F nan = _mm256_cmp_ps(f, f, _CMP_UNORD_Q);
    return _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(nan));
  }
  static void RoundBF16(const float* x, uint32_t* words) {
    for (int i = 0; i < 32; i += 16) {
      const I a = _mm256_srli_epi32(RoundedBits(Load(x + i)), 16);
      const I b = _mm256_srli_epi32(RoundedBits(Load(x + i + 8)), 16);
      // The pack works within 128-bit halves: put the middle quarters back in order.
      const I packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xd8);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(words + i / 2), packed);
    }
  }

  // Without the sign, floats order like their bits, and NaN comes out above everything.
  static float AbsMax(const float* x) {
    const I mask = SetI(0x7fffffff);
    I max = _mm256_setzero_si256();
    for (int i = 0; i < 32; i += 8) {
      max = _mm256_max_epi32(max, _mm256_and_si256(_mm256_castps_si256(Load(x + i)), mask));
    }
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(max), _mm256_extracti128_si256(max, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    const int32_t bits = _mm_cvtsi128_si32(m);
    float amax;
    std::memcpy(&amax, &bits, sizeof(amax));
    return amax;
  }

  static int32_t Quantise(const float* x, float inverse, uint32_t* words) {
    const F scale = Set(inverse);
    I q[4];
    for (int i = 0; i < 4; ++i) q[i] = _mm256_cvtps_epi32(Mul(Load(x + 8 * i), scale));
    const I packed =
        _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    // Two packs within 128-bit halves leave the words as 0 2 4 6 1 3 5 7.
    const I order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(words),
                        _mm256_permutevar8x32_epi32(packed, order));
    const I s = _mm256_add_epi32(_mm256_add_epi32(q[0], q[1]), _mm256_add_epi32(q[2], q[3]));
    __m128i t = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
    t = _mm_add_epi32(t, _mm_shuffle_epi32(t, 0x4e));
    t = _mm_add_epi32(t, _mm_shuffle_epi32(t, 0xb1));
    return _mm_cvtsi128_si32(t);
  }

 private:
  static __m128i LoadTable(const uint8_t* from) {
    return _mm_load_si128(reinterpret_cast<const __m128i*>(from));
  }
  static I Twice(__m128i table) { return _mm256_broadcastsi128_si256(table); }
};

}  // namespace

const LinearKernels& Avx2LinearKernels() {
  static const LinearKernels kernels = micro::MakeLinearKernels<Avx2>();
  return kernels;
}

}  // namespace essor::kernels
