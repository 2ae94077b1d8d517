#include "model/checkpoint/fp8_blocks.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/float8.h"
#include "common/status_macros.h"
#include "model/checkpoint/tensor_error.h"

namespace essor::model {
namespace {

uint64_t BlocksOf(uint64_t size) { return (size + kFp8BlockSize - 1) / kFp8BlockSize; }

// Shape of the scales that a weight of this shape needs.
std::vector<uint64_t> ScaleShape(std::vector<uint64_t> shape) {
  for (size_t i = shape.size() - 2; i < shape.size(); ++i) shape[i] = BlocksOf(shape[i]);
  return shape;
}

// Row of the scales, taken as [*, blocks of columns], for a row of the weight.
uint64_t ScaleRow(const TensorView& weight, uint64_t row) {
  const uint64_t matrix_rows = weight.shape[weight.shape.size() - 2];
  return row / matrix_rows * BlocksOf(matrix_rows) + row % matrix_rows / kFp8BlockSize;
}

}  // namespace

std::string Fp8ScaleName(const std::string& tensor) { return tensor + "_scale_inv"; }

absl::Status CheckFp8Scales(const TensorView& weight, const TensorView& scales) {
  if (weight.shape.size() < 2 || weight.shape.size() > 3) {
    return TensorError(weight, absl::StrCat("is ", InfoOf(weight.dtype).name, ", but its shape ",
                                            ShapeText(weight.shape), " is not that of matrices"));
  }
  switch (scales.dtype) {
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
    case DType::kF8E8M0:
      break;
    default:
      return TensorError(scales, absl::StrCat("type ", InfoOf(scales.dtype).name,
                                              " does not hold scales (f32, f16, bf16 or f8_e8m0)"));
  }
  const std::vector<uint64_t> needed = ScaleShape(weight.shape);
  if (scales.shape == needed) return absl::OkStatus();
  return TensorError(
      scales,
      absl::StrCat("its shape is ", ShapeText(scales.shape), ", but blocks of 128 x 128 of ",
                   weight.name, " ", ShapeText(weight.shape), " have scales ", ShapeText(needed)));
}

absl::Status ReadFp8Codes(const TensorView& weight, const RowPart& row, std::span<uint8_t> out) {
  ESSOR_CHECK(weight.dtype == DType::kF8E4M3 && out.size() == row.end_col - row.first_col);
  const uint64_t cols = weight.shape.back();
  if (row.end_col > cols || row.row >= weight.data.size() / std::max<uint64_t>(cols, 1)) {
    return absl::OutOfRangeError(absl::StrCat(weight.file, ": tensor ", weight.name, " ",
                                              ShapeText(weight.shape), " has no columns up to ",
                                              row.end_col, " of row ", row.row));
  }
  std::memcpy(out.data(), weight.data.data() + row.row * cols + row.first_col, out.size());
  bool nan = false;
  for (const uint8_t code : out) nan |= IsNan(Float8E4M3{code});
  if (nan) return TensorError(weight, absl::StrCat("row ", row.row, " holds NaN"));
  return absl::OkStatus();
}

absl::Status ReadFp8Scales(const TensorView& weight, const TensorView& scales, const RowPart& row,
                           std::span<float> out) {
  ESSOR_CHECK(out.size() == NumFp8Blocks(row));
  const uint64_t first =
      ScaleRow(weight, row.row) * BlocksOf(weight.shape.back()) + row.first_col / kFp8BlockSize;
  ESSOR_RETURN_IF_ERROR(DecodeToFloat(scales, first, out));
  for (size_t i = 0; i < out.size(); ++i) {
    if (std::isfinite(out[i]) && !(out[i] < 0)) continue;
    return TensorError(scales, absl::StrCat("scale ", first + i, " is ", out[i],
                                            ", not a finite number of at least 0"));
  }
  return absl::OkStatus();
}

absl::Status DecodeFp8Row(const TensorView& weight, const TensorView& scales, const RowPart& row,
                          std::span<float> out) {
  std::vector<uint8_t> codes(out.size());
  std::vector<float> row_scales(NumFp8Blocks(row));
  ESSOR_RETURN_IF_ERROR(ReadFp8Codes(weight, row, codes));
  ESSOR_RETURN_IF_ERROR(ReadFp8Scales(weight, scales, row, row_scales));
  for (size_t c = 0; c < out.size(); ++c) {
    const size_t block = (row.first_col % kFp8BlockSize + c) / kFp8BlockSize;
    out[c] = ToFloat(Float8E4M3{codes[c]}) * row_scales[block];
  }
  return absl::OkStatus();
}

}  // namespace essor::model
