// Vectors of a KV cache, of any type (common/kv_type.h), for the plain loops.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "common/float16.h"
#include "common/float8.h"
#include "common/kv_type.h"

namespace essor::kernels::reference {

// One vector where it lies in a cache; not owned. Nothing need be aligned.
struct CacheVector {
  std::byte* elements;
  size_t stride;  // from one element to the next, in elements
  KvType type;
  std::byte* scale = nullptr;  // of kInt8

  std::byte* at(size_t index) const { return elements + index * stride * ElementBytes(type); }
};

template <typename T>
T LoadAs(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

template <typename T>
void StoreAs(std::byte* to, T value) {
  std::memcpy(to, &value, sizeof(T));
}

inline double LoadElement(const CacheVector& vector, size_t index) {
  const std::byte* const at = vector.at(index);
  switch (vector.type) {
    case KvType::kFloat32:
      return LoadAs<float>(at);
    case KvType::kBFloat16:
      return ToFloat(LoadAs<BFloat16>(at));
    case KvType::kFp8:
      return ToFloat(LoadAs<Float8E4M3>(at));
    case KvType::kInt8:
      break;
  }
  return static_cast<double>(LoadAs<int8_t>(at)) * LoadAs<float>(vector.scale);
}

// The scale of a vector of `count` values, as common/kv_type.h has it.
inline float ScaleOf(const float* values, size_t count) {
  float largest = 0;
  for (size_t i = 0; i < count; ++i) {
    if (!std::isfinite(values[i])) return std::numeric_limits<float>::quiet_NaN();
    largest = std::max(largest, std::abs(values[i]));
  }
  const float scale = largest / 127.0f;
  return std::isnormal(scale) ? scale : 0.0f;
}

inline void StoreVector(const CacheVector& vector, const float* values, size_t count) {
  const float scale = vector.type == KvType::kInt8 ? ScaleOf(values, count) : 1.0f;
  if (vector.type == KvType::kInt8) StoreAs(vector.scale, scale);
  for (size_t i = 0; i < count; ++i) {
    std::byte* const at = vector.at(i);
    switch (vector.type) {
      case KvType::kFloat32:
        StoreAs(at, values[i]);
        break;
      case KvType::kBFloat16:
        StoreAs(at, ToBFloat16(values[i]));
        break;
      case KvType::kFp8:
        StoreAs(at, ToFloat8E4M3(values[i]));
        break;
      case KvType::kInt8:
        // The rounding of the division cannot lead beyond 127.
        StoreAs(at, static_cast<int8_t>(scale > 0 ? std::nearbyint(values[i] / scale) : 0.0f));
        break;
    }
  }
}

}  // namespace essor::kernels::reference
