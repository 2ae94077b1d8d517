// 4-bit matrices whose groups of 32 columns share a scale that stands in a tensor of its own. The
// files have no type for them: their bytes are whole numbers of another type, and the family knows
// by the names of the tensors what they are.
//
//  * kF4E2M1: MXFP4 as gpt-oss has it (Open Compute Project, "OCP Microscaling Formats"): u8
//    "X_blocks" [.., rows, cols / 32, 16] with u8 "X_scales" [.., rows, cols / 32], which are e8m0.
//  * kOffsetI4: the compressed-tensors library's format "pack-quantized" with 4 bits, symmetric, in
//    groups of 32: i32 "X.weight_packed" [rows, cols / 8] with "X.weight_scale" [rows, cols / 32]
//    of real numbers and "X.weight_shape", the two numbers rows and cols.
//
// Both have column 2 i of a row in the low and column 2 i + 1 in the high half of its byte i.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/checkpoint/checkpoint.h"

namespace essor::model {

inline constexpr uint64_t kNibbleGroup = 32;  // columns that share a scale

// Whether tensors of that type are made by TakeAsNibbles.
inline bool IsNibbles(DType dtype) { return dtype == DType::kF4E2M1 || dtype == DType::kOffsetI4; }

// The same bytes as a tensor [.., rows, cols] of `dtype`. InvalidArgument naming file, tensor, type
// and shape where they cannot be one.
absl::StatusOr<TensorView> TakeAsNibbles(const TensorView& tensor, DType dtype);

// "X.weight_shape" for "X.weight_packed".
std::string PackedShapeName(const std::string& packed);
// Whether `shape` says the shape of `weight`, a matrix of kOffsetI4. InvalidArgument with both.
absl::Status CheckPackedShape(const TensorView& weight, const TensorView& shape);

// Whether `scales` fits `weight`, which TakeAsNibbles made: its shape, and e8m0 bytes (u8 or
// f8_e8m0) for kF4E2M1, real numbers (f32, f16, bf16) for kOffsetI4. InvalidArgument naming file,
// tensor and both shapes; reads no values.
absl::Status CheckNibbleScales(const TensorView& weight, const TensorView& scales);

// A part of a row, from and to a multiple of 32 columns: its codes, two a byte in the order above,
// and one scale per group, as float32. For tensors that CheckNibbleScales accepts. OutOfRange
// outside the tensor; InvalidArgument naming file and tensor for parts that cut groups and for a
// scale that is negative or not finite.
absl::Status ReadNibbleCodes(const TensorView& weight, const RowPart& part,
                             std::span<uint8_t> out);  // [columns / 2]
absl::Status ReadNibbleScales(const TensorView& weight, const TensorView& scales,
                              const RowPart& part, std::span<float> out);  // [columns / 32]

// The part multiplied out, one float a column. Errors of the two above.
absl::Status DecodeNibbleRow(const TensorView& weight, const TensorView& scales,
                             const RowPart& part, std::span<float> out);

}  // namespace essor::model
