// Single elements of a KV cache, bf16 or f32, for the plain loops.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/float16.h"

namespace essor::kernels::reference {

inline float LoadElement(const void* data, bool fp32, size_t index) {
  if (fp32) return static_cast<const float*>(data)[index];
  return ToFloat(BFloat16{static_cast<const uint16_t*>(data)[index]});
}

inline void StoreElement(void* data, bool fp32, size_t index, float value) {
  if (fp32) {
    static_cast<float*>(data)[index] = value;
  } else {
    static_cast<uint16_t*>(data)[index] = ToBFloat16(value).bits;
  }
}

}  // namespace essor::kernels::reference
