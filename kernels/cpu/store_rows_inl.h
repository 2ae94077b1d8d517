// Rows of floats as the elements of a KV cache (common/kv_type.h): the bits that the plain loops
// store, on every ISA. For the ISA this is compiled for; see simd_inl.h.
#pragma once

#include <cstdint>

#include "kernels/cpu/simd_inl.h"

namespace essor::kernels {
namespace {  // NOLINT(google-build-namespaces): see simd_inl.h

typedef uint8_t U8 __attribute__((vector_size(kLanes)));

ESSOR_INLINE U32 Bits(F32 v) { return reinterpret_cast<U32>(v); }
ESSOR_INLINE U32 Magnitude(F32 v) { return Bits(v) & 0x7fffffffu; }

// The low bytes of `codes`, the first min(n, kLanes) of them.
ESSOR_INLINE void StoreBytes(void* to, U32 codes, uint32_t n) {
  const U8 bytes = __builtin_convertvector(codes, U8);
  if (n >= kLanes) {
    __builtin_memcpy(to, &bytes, kLanes);
  } else {
    __builtin_memcpy(to, &bytes, n);
  }
}

void StoreBf16Row(uint16_t* y, const float* x, uint32_t count) {
  uint32_t i = 0;
  for (; i + kLanes <= count; i += kLanes) StoreBf16(y + i, Load(x + i));
  if (i < count) {
    uint16_t tail[kLanes];
    StoreBf16(tail, LoadPartial(x + i, count - i));
    __builtin_memcpy(y + i, tail, (count - i) * sizeof(uint16_t));
  }
}

// ToFloat8E4M3 of common/float8.h, where the steps are explained.
ESSOR_INLINE U32 ToE4M3(F32 v) {
  constexpr uint32_t kInfinity = 0x7f800000;
  constexpr uint32_t kLargest = 0x43e00000;      // 448
  constexpr uint32_t kLeastNormal = 0x3c800000;  // 2^-6
  const U32 magnitude = Magnitude(v);
  const U32 limited = magnitude > kLargest ? U32{} + kLargest : magnitude;
  const U32 normal = ((limited + 0x7ffffu + ((limited >> 20) & 1u)) >> 20) - (120u << 3);
  const U32 subnormal = Bits(reinterpret_cast<F32>(limited) + Set1(0x1p14f)) - Bits(Set1(0x1p14f));
  const U32 code = limited >= kLeastNormal ? normal : subnormal;
  const U32 sign = (Bits(v) >> 24) & 0x80u;
  return magnitude >= kInfinity ? U32{} + 0x7fu : code | sign;
}

void StoreFp8Row(uint8_t* y, const float* x, uint32_t count) {
  for (uint32_t i = 0; i < count; i += kLanes) {
    StoreBytes(y + i, ToE4M3(LoadPartial(x + i, count - i)), count - i);
  }
}

// The bits of the largest magnitude; more than infinity's where there is a NaN.
ESSOR_INLINE uint32_t LargestMagnitude(const float* x, uint32_t count) {
  U32 largest = {};
  for (uint32_t i = 0; i < count; i += kLanes) {
    const U32 magnitude = Magnitude(LoadPartial(x + i, count - i));
    largest = magnitude > largest ? magnitude : largest;
  }
  uint32_t result = 0;
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    result = largest[lane] > result ? largest[lane] : result;
  }
  return result;
}

// Returns the scale.
float StoreInt8Row(int8_t* y, const float* x, uint32_t count) {
  const uint32_t largest = LargestMagnitude(x, count);
  const bool finite = largest < 0x7f800000;
  float magnitude;
  __builtin_memcpy(&magnitude, &largest, sizeof(magnitude));
  const float scale = magnitude / 127.0f;
  if (!finite || scale < 0x1p-126f) {
    __builtin_memset(y, 0, count);
    return finite ? 0.0f : __builtin_nanf("");
  }
  // Adding 1.5 * 2^23 leaves the rounded quotient in the low mantissa bits.
  const F32 round = Set1(12582912.0f);
  for (uint32_t i = 0; i < count; i += kLanes) {
    const F32 quotient = LoadPartial(x + i, count - i) / Set1(scale);
    StoreBytes(y + i, Bits(quotient + round), count - i);
  }
  return scale;
}

}  // namespace
}  // namespace essor::kernels
