// Plain C++ for any processor; the loops over lanes are for the compiler to vectorise.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "common/float16.h"
#include "common/float8.h"
#include "kernels/cpu/linear_kernels_inl.h"
#include "kernels/cpu/nibble_values.h"

namespace essor::kernels {
namespace {

constexpr std::array<uint16_t, 256> MakeFp8Table() {
  std::array<uint16_t, 256> table{};
  for (uint32_t code = 0; code < 256; ++code) {
    table[code] = BFloat16BitsOf(Float8E4M3{static_cast<uint8_t>(code)});
  }
  return table;
}
constexpr std::array<uint16_t, 256> kFp8Table = MakeFp8Table();

struct Portable {
  static constexpr int kLanes = 8;
  static constexpr int kMaxRows = 4;
  static constexpr int kMaxQuantRows = 4;
  static constexpr int Vectors(int /*rows*/, bool /*quant*/) { return 1; }

  struct F {
    float lane[kLanes];
  };
  struct I {
    uint32_t lane[kLanes];  // the bits; unsigned, so that nothing overflows
  };

  static F Zero() { return Set(0); }
  static F Load(const float* p) {
    F f;
    std::memcpy(&f, p, sizeof(f));
    return f;
  }
  static void Store(float* p, const F& f) { std::memcpy(p, &f, sizeof(f)); }
  static F Set(float s) {
    F f;
    std::fill_n(f.lane, kLanes, s);
    return f;
  }
  static F Fma(const F& a, const F& b, F c) {
    for (int i = 0; i < kLanes; ++i) c.lane[i] += a.lane[i] * b.lane[i];
    return c;
  }
  static F Mul(F a, const F& b) {
    for (int i = 0; i < kLanes; ++i) a.lane[i] *= b.lane[i];
    return a;
  }
  static F Min(F a, const F& b) {
    for (int i = 0; i < kLanes; ++i) a.lane[i] = a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i];
    return a;
  }
  static F Max(F a, const F& b) {
    for (int i = 0; i < kLanes; ++i) a.lane[i] = a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i];
    return a;
  }
  static F Silu(F x) {
    for (float& lane : x.lane) lane = lane / (1.0f + std::exp(-lane));
    return x;
  }
  static F LoadHalf(const std::byte* p) {
    F f;
    for (int i = 0; i < kLanes; ++i) {
      f.lane[i] = ToFloat(Float16{micro::LoadAs<Portable, uint16_t>(p + 2 * i)});
    }
    return f;
  }

  static I LoadI(const std::byte* p) {
    I i;
    std::memcpy(&i, p, sizeof(i));
    return i;
  }
  static I SetI(int32_t s) {
    I i;
    std::fill_n(i.lane, kLanes, static_cast<uint32_t>(s));
    return i;
  }
  static F ToFloat(const I& i) {
    F f;
    for (int l = 0; l < kLanes; ++l) {
      f.lane[l] = static_cast<float>(static_cast<int32_t>(i.lane[l]));
    }
    return f;
  }
  static float ToFloat(Float16 value) { return essor::ToFloat(value); }

  static F DotBF16(F sum, const I& w, const I& x) {
    for (int i = 0; i < kLanes; ++i) {
      sum.lane[i] += Bits(w.lane[i] << 16) * Bits(x.lane[i] << 16);
      sum.lane[i] += Bits(w.lane[i] & 0xffff0000u) * Bits(x.lane[i] & 0xffff0000u);
    }
    return sum;
  }

  static void DecodeFp8(const I& w, I& first, I& second) {
    const auto decode = [](uint32_t code) { return uint32_t{kFp8Table[code & 0xffu]}; };
    for (int i = 0; i < kLanes; ++i) {
      first.lane[i] = decode(w.lane[i]) | decode(w.lane[i] >> 16) << 16;
      second.lane[i] = decode(w.lane[i] >> 8) | decode(w.lane[i] >> 24) << 16;
    }
  }

  template <WeightFormat kFormat, int kPair>
  static I DecodeNibbles(I w) {
    static constexpr NibbleTable kTable = MakeNibbleTable(kFormat);
    for (uint32_t& lane : w.lane) {
      const uint32_t codes = lane >> (4 * kPair);
      lane = kTable[codes & 0x0fu] | uint32_t{kTable[codes >> 16 & 0x0fu]} << 16;
    }
    return w;
  }
  static F LoadBF16(const std::byte* p) {
    F f;
    for (int i = 0; i < kLanes; ++i) {
      f.lane[i] = Bits(uint32_t{micro::LoadAs<Portable, uint16_t>(p + 2 * i)} << 16);
    }
    return f;
  }

  static I InitQ8(int32_t minus_128_sum) { return SetI(minus_128_sum); }
  static I DotQ8(I sum, const I& w, const I& x) {
    for (int c = 0; c < 32; c += 8) {
      for (int i = 0; i < kLanes; ++i) {
        const auto value = static_cast<int32_t>(static_cast<int8_t>(x.lane[i] >> c));
        sum.lane[i] += ((w.lane[i] >> c) & 0xffu) * static_cast<uint32_t>(value);
      }
    }
    return sum;
  }
  static I LowNibbles(I w) {
    for (uint32_t& lane : w.lane) lane &= 0x0f0f0f0fu;
    return w;
  }
  static I HighNibbles(I w) {
    for (uint32_t& lane : w.lane) lane = (lane >> 4) & 0x0f0f0f0fu;
    return w;
  }
  static I DotQ4(const I& sum, const I& nibbles, const I& x) { return DotQ8(sum, nibbles, x); }

  static void RoundBF16(const float* x, uint32_t* words) {
    for (int i = 0; i < 16; ++i) {
      words[i] = ToBFloat16(x[2 * i]).bits | static_cast<uint32_t>(ToBFloat16(x[2 * i + 1]).bits)
                                                 << 16;
    }
  }
  static float AbsMax(const float* x) {
    float amax = 0;
    for (int i = 0; i < 32; ++i) {
      // False for NaN on either side, which then stays.
      if (!(std::abs(x[i]) <= amax)) amax = std::isnan(amax) ? amax : std::abs(x[i]);
    }
    return amax;
  }
  static int32_t Quantise(const float* x, float inverse, uint32_t* words) {
    int32_t sum = 0;
    std::fill_n(words, 8, 0u);
    for (int i = 0; i < 32; ++i) {
      const float scaled = std::nearbyint(x[i] * inverse);
      // NaN where x or the scale is not finite: any value will do.
      const int32_t value = std::abs(scaled) <= 127.0f ? static_cast<int32_t>(scaled) : 0;
      words[i / 4] |= (static_cast<uint32_t>(value) & 0xffu) << (i % 4 * 8);
      sum += value;
    }
    return sum;
  }

 private:
  static float Bits(uint32_t bits) { return std::bit_cast<float>(bits); }
};

}  // namespace

const LinearKernels& PortableLinearKernels() {
  static const LinearKernels kernels = micro::MakeLinearKernels<Portable>();
  return kernels;
}

}  // namespace essor::kernels
