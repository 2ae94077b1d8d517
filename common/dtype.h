// Element types of tensors as they are stored in model files.
#pragma once

#include <cstdint>
#include <string>

namespace essor {

// Block-quantised types keep `DTypeInfo::block_elements` consecutive elements of a row together.
// Layouts: ggml's quantised blocks as described in the GGUF specification.
enum class DType {
  kF32,
  kF16,
  kBF16,
  kI64,  // index tensors only
  kI32,
  kU8,
  kQ8_0,    // 32 x int8, one f16 scale
  kQ4_0,    // 32 x 4 bit, one f16 scale; w = scale * (q - 8)
  kQ4_1,    // 32 x 4 bit, f16 scale and minimum; w = scale * q + minimum
  kQ4_K,    // 256 x 4 bit in 8 sub-blocks with 6-bit scales and minima
  kQ6_K,    // 256 x 6 bit in 16 sub-blocks with 8-bit scales
  kF8E4M3,  // without its scales, which are another tensor's
  kF8E8M0,  // powers of two: scales only
  // 32 x 4 bit without their scale, which is another tensor's (model/checkpoint/nibble_groups.h).
  kF4E2M1,    // floats
  kOffsetI4,  // w = scale * (q - 8)
};

struct DTypeInfo {
  const char* name;         // as logged: "bf16", "q8_0"
  uint32_t block_elements;  // 1 for plain types
  uint32_t block_bytes;
};

const DTypeInfo& InfoOf(DType dtype);

// Bytes of `elements` consecutive elements, a multiple of the block size.
inline uint64_t StorageBytes(DType dtype, uint64_t elements) {
  const DTypeInfo& info = InfoOf(dtype);
  return elements / info.block_elements * info.block_bytes;
}

}  // namespace essor
