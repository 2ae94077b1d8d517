// FP8 block checkpoints (DeepSeek V3, Qwen3-FP8, MiniMax-M2 and others): an e4m3 matrix and beside
// it the scales of its blocks of 128 x 128, in a tensor of the same name with "_scale_inv" behind
// it. weight = e4m3 value x scale; the last blocks of rows and columns may be partial. A matrix
// [R, C] has scales [ceil(R / 128), ceil(C / 128)], a stack [E, R, C] of them as many for each of
// its E matrices: blocks never reach from one matrix into the next.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "model/checkpoint/checkpoint.h"

namespace essor::model {

inline constexpr uint64_t kFp8BlockSize = 128;

std::string Fp8ScaleName(const std::string& tensor);

// Whether `scales` fits `weight`, an e4m3 tensor of 2 or 3 dimensions: its shape, and a type of
// real numbers (f32, f16, bf16, or f8_e8m0 for powers of two). InvalidArgument naming file, tensor
// and both shapes; reads no values.
absl::Status CheckFp8Scales(const TensorView& weight, const TensorView& scales);

// Blocks of columns that the part touches.
inline uint64_t NumFp8Blocks(const RowPart& part) {
  return (part.end_col + kFp8BlockSize - 1) / kFp8BlockSize - part.first_col / kFp8BlockSize;
}

// The part's codes, one a column, and the scales of its NumFp8Blocks().
// For tensors that CheckFp8Scales accepts. OutOfRange outside the tensor; InvalidArgument naming
// file and tensor for a code that is NaN or a scale that is negative or not finite.
absl::Status ReadFp8Codes(const TensorView& weight, const RowPart& row, std::span<uint8_t> out);
absl::Status ReadFp8Scales(const TensorView& weight, const TensorView& scales, const RowPart& row,
                           std::span<float> out);

// The row multiplied out, one float a column. Errors of the two above.
absl::Status DecodeFp8Row(const TensorView& weight, const TensorView& scales, const RowPart& row,
                          std::span<float> out);

}  // namespace essor::model
