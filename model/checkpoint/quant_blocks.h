// The bytes of ggml's quantised blocks, one decoder per type. Source of the layouts: the GGUF
// specification and ggml's block structures. All numbers little-endian; d and m are IEEE half.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "common/float16.h"

namespace essor::model {

inline constexpr uint32_t kBlockElements = 32;        // Q8_0, Q4_0, Q4_1; a sub-block of Q4_K
inline constexpr uint32_t kSuperBlockElements = 256;  // Q4_K, Q6_K

inline uint16_t LoadU16(const std::byte* from) {
  uint16_t value = 0;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

// IEEE half to float without branches, so that loops over it vectorise. Exact, subnormal and
// non-finite values included, whatever the denormal mode of the thread.
inline float HalfToFloat(uint16_t half) {
  const uint32_t magnitude = uint32_t{half & 0x7fffu} << 13;
  const uint32_t exponent = magnitude & 0x0f800000u;
  // Half's exponent bias is 15, float's 127: 112 more. Infinity and NaN go from 31 to 255.
  const uint32_t not_finite = 0u - static_cast<uint32_t>(exponent == 0x0f800000u);
  const uint32_t normal = magnitude + (112u << 23) + (not_finite & (112u << 23));
  // A subnormal is mantissa * 2^-24 = (1 + mantissa / 1024) * 2^-14 - 2^-14.
  const float subnormal = std::bit_cast<float>(magnitude + (113u << 23)) - 0x1p-14f;
  const uint32_t is_subnormal = 0u - static_cast<uint32_t>(exponent == 0);
  const uint32_t bits =
      (std::bit_cast<uint32_t>(subnormal) & is_subnormal) | (normal & ~is_subnormal);
  return std::bit_cast<float>(bits | (uint32_t{half & 0x8000u} << 16));
}

inline float LoadHalf(const std::byte* from) { return HalfToFloat(LoadU16(from)); }

// 6-bit scales and minima of the 8 sub-blocks of a Q4_K block, packed into 12 bytes: the first four
// of each in the low 6 bits of bytes 0-3 and 4-7; the others' low 4 bits in bytes 8-11, their high
// 2 bits above the first four.
struct Q4KScale {
  uint8_t scale;
  uint8_t minimum;
};
inline Q4KScale UnpackQ4KScale(const uint8_t* packed, uint32_t sub_block) {
  if (sub_block < 4) {
    return {static_cast<uint8_t>(packed[sub_block] & 63u),
            static_cast<uint8_t>(packed[sub_block + 4] & 63u)};
  }
  const uint8_t low = packed[sub_block + 4];
  return {static_cast<uint8_t>((low & 15u) | ((packed[sub_block - 4] >> 6) << 4)),
          static_cast<uint8_t>((low >> 4) | ((packed[sub_block] >> 6) << 4))};
}

// Each reads one block at `block` and writes its elements; no alignment is needed.

// f16 d, int8 q[32]
inline void DecodeQ8_0(const std::byte* block, float* out) {
  const float d = LoadHalf(block);
  int8_t q[kBlockElements];
  std::memcpy(q, block + 2, sizeof(q));
  for (uint32_t i = 0; i < kBlockElements; ++i) out[i] = d * static_cast<float>(q[i]);
}

// 16 bytes: element i in the low half of byte i, element i + 16 in the high half.
inline void UnpackNibbles(const std::byte* packed, uint8_t* out) {
  uint8_t bytes[kBlockElements / 2];
  std::memcpy(bytes, packed, sizeof(bytes));
  for (uint32_t i = 0; i < kBlockElements / 2; ++i) {
    out[i] = bytes[i] & 15u;
    out[i + kBlockElements / 2] = bytes[i] >> 4;
  }
}

// scale * q + minimum over 32 unpacked nibbles.
inline void ScaleNibbles(const uint8_t* q, float scale, float minimum, float* out) {
  for (uint32_t i = 0; i < kBlockElements; ++i) {
    out[i] = scale * static_cast<float>(q[i]) + minimum;
  }
}

// f16 d, nibbles[16]; (q - 8) * d. -8 d is exact, so this equals d * q - 8 d rounded once.
inline void DecodeQ4_0(const std::byte* block, float* out) {
  const float d = LoadHalf(block);
  uint8_t q[kBlockElements];
  UnpackNibbles(block + 2, q);
  ScaleNibbles(q, d, -8.0f * d, out);
}

// f16 d, f16 m, nibbles[16]; d * q + m
inline void DecodeQ4_1(const std::byte* block, float* out) {
  uint8_t q[kBlockElements];
  UnpackNibbles(block + 4, q);
  ScaleNibbles(q, LoadHalf(block), LoadHalf(block + 2), out);
}

// Sub-block `index` of a Q4_K block: f16 d, f16 dmin, packed scales[12], nibbles[128], where 32
// bytes hold one sub-block in their low and the next in their high halves.
struct Q4KSubBlock {
  float scale;
  float minimum;
  uint8_t q[kBlockElements];
};
inline void ReadQ4KSubBlock(const std::byte* block, uint32_t index, Q4KSubBlock& out) {
  uint8_t packed[12];
  std::memcpy(packed, block + 4, sizeof(packed));
  const Q4KScale scale = UnpackQ4KScale(packed, index);
  out.scale = LoadHalf(block) * static_cast<float>(scale.scale);
  out.minimum = -(LoadHalf(block + 2) * static_cast<float>(scale.minimum));
  uint8_t bytes[kBlockElements];
  std::memcpy(bytes, block + 16 + index / 2 * kBlockElements, sizeof(bytes));
  const uint32_t shift = index % 2 * 4;
  for (uint32_t i = 0; i < kBlockElements; ++i) {
    out.q[i] = static_cast<uint8_t>((bytes[i] >> shift) & 15u);
  }
}

inline void DecodeQ4_K(const std::byte* block, float* out) {
  for (uint32_t sub = 0; sub < kSuperBlockElements / kBlockElements; ++sub) {
    Q4KSubBlock values;
    ReadQ4KSubBlock(block, sub, values);
    ScaleNibbles(values.q, values.scale, values.minimum, out + sub * kBlockElements);
  }
}

// Low 4 bits[128], high 2 bits[64], int8 scales[16] (one per 16 elements), f16 d. Each half of 128
// elements has 64 low and 32 high bytes: group g (0..3) of 32 elements takes its low bits from
// bytes (g % 2) * 32 ..., the low halves for g < 2, and its high bits from bits 2 g of the 32.
inline void DecodeQ6_K(const std::byte* block, float* out) {
  uint8_t bytes[208];
  std::memcpy(bytes, block, sizeof(bytes));
  const float d = LoadHalf(block + 208);
  for (uint32_t half = 0; half < 2; ++half) {
    const uint8_t* const low = bytes + half * 64;
    const uint8_t* const high = bytes + 128 + half * 32;
    for (uint32_t group = 0; group < 4; ++group) {
      const uint8_t* const scales = bytes + 192 + half * 8 + group * 2;
      const uint32_t low_shift = group / 2 * 4;
      int8_t q[kBlockElements];
      for (uint32_t i = 0; i < kBlockElements; ++i) {
        const uint32_t bits =
            ((low[group % 2 * 32 + i] >> low_shift) & 15u) | (((high[i] >> (2 * group)) & 3u) << 4);
        q[i] = static_cast<int8_t>(static_cast<int32_t>(bits) - 32);
      }
      for (uint32_t part = 0; part < 2; ++part) {
        const float scale = d * static_cast<float>(static_cast<int8_t>(scales[part]));
        for (uint32_t i = 0; i < 16; ++i) {
          out[part * 16 + i] = scale * static_cast<float>(q[part * 16 + i]);
        }
      }
      out += kBlockElements;
    }
  }
}

}  // namespace essor::model
