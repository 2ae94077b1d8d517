// Vectors of floats as those of a KV cache, on the CPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "common/kv_type.h"
#include "kernels/cpu/row_kernels.h"

namespace essor::kernels {

// The elements side by side from `to` on; the scale to `scale`, which need not be aligned and is
// left alone where the type has none. The elements of floats and bfloat16 are aligned.
inline void StoreVector(const RowKernels& kernels, KvType type, std::span<const float> from,
                        std::byte* to, std::byte* scale) {
  const auto count = static_cast<uint32_t>(from.size());
  switch (type) {
    case KvType::kFloat32:
      std::memcpy(to, from.data(), from.size_bytes());
      return;
    case KvType::kBFloat16:
      return kernels.store_bf16(reinterpret_cast<uint16_t*>(to), from.data(), count);
    case KvType::kFp8:
      return kernels.store_fp8(reinterpret_cast<uint8_t*>(to), from.data(), count);
    case KvType::kInt8: {
      const float value = kernels.store_int8(reinterpret_cast<int8_t*>(to), from.data(), count);
      std::memcpy(scale, &value, sizeof(value));
    }
  }
}

}  // namespace essor::kernels
