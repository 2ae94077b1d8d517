#include "model/checkpoint/nibble_groups.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/float4.h"
#include "common/float8.h"
#include "common/status_macros.h"
#include "model/checkpoint/tensor_error.h"

namespace essor::model {
namespace {

constexpr uint64_t kGroupBytes = kNibbleGroup / 2;

std::string TypeAndShape(const TensorView& tensor) {
  return absl::StrCat(InfoOf(tensor.dtype).name, " ", ShapeText(tensor.shape));
}

absl::Status CheckPart(const TensorView& weight, const RowPart& part) {
  if (part.first_col % kNibbleGroup != 0 || part.end_col % kNibbleGroup != 0) {
    return TensorError(weight, absl::StrCat("columns ", part.first_col, " to ", part.end_col,
                                            " cut groups of ", kNibbleGroup));
  }
  const uint64_t cols = weight.shape.back();
  const uint64_t rows = cols == 0 ? 0 : weight.data.size() / (cols / 2);
  if (part.row < rows && part.first_col <= part.end_col && part.end_col <= cols) {
    return absl::OkStatus();
  }
  return absl::OutOfRangeError(absl::StrCat(weight.file, ": tensor ", weight.name, " ",
                                            ShapeText(weight.shape), " has no columns up to ",
                                            part.end_col, " of row ", part.row));
}

bool HoldsScales(DType weight, DType scales) {
  if (weight == DType::kF4E2M1) return scales == DType::kU8 || scales == DType::kF8E8M0;
  return scales == DType::kF32 || scales == DType::kF16 || scales == DType::kBF16;
}

float CodeValue(DType dtype, uint8_t code) {
  return dtype == DType::kF4E2M1 ? ToFloat(Float4E2M1{code}) : ToFloat(OffsetInt4{code});
}

}  // namespace

absl::StatusOr<TensorView> TakeAsNibbles(const TensorView& tensor, DType dtype) {
  ESSOR_CHECK(IsNibbles(dtype));
  TensorView view = tensor;
  view.dtype = dtype;
  if (dtype == DType::kF4E2M1) {
    if (tensor.dtype != DType::kU8 || tensor.shape.size() < 3 ||
        tensor.shape.back() != kGroupBytes) {
      return TensorError(
          tensor, absl::StrCat("is ", TypeAndShape(tensor), ", not MXFP4 blocks, u8 [.., groups, ",
                               kGroupBytes, "]"));
    }
    view.shape.pop_back();
    view.shape.back() *= kNibbleGroup;
    return view;
  }
  constexpr uint64_t kColumnsPerWord = 8;
  const bool whole =
      tensor.shape.size() == 2 && tensor.shape.back() * kColumnsPerWord % kNibbleGroup == 0;
  if (tensor.dtype != DType::kI32 || !whole) {
    return TensorError(
        tensor, absl::StrCat("is ", TypeAndShape(tensor), ", not packed 4-bit integers, i32 ",
                             "[rows, columns / ", kColumnsPerWord, "] in groups of ", kNibbleGroup,
                             " columns"));
  }
  view.shape.back() *= kColumnsPerWord;
  return view;
}

std::string PackedShapeName(const std::string& packed) {
  return absl::StrCat(packed.substr(0, packed.rfind('_')), "_shape");
}

absl::Status CheckPackedShape(const TensorView& weight, const TensorView& shape) {
  const bool wide = shape.dtype == DType::kI64;
  if ((!wide && shape.dtype != DType::kI32) || shape.shape != std::vector<uint64_t>{2}) {
    return TensorError(shape, absl::StrCat("is ", TypeAndShape(shape), ", not two whole numbers"));
  }
  std::vector<uint64_t> said(2);
  for (size_t i = 0; i < said.size(); ++i) {
    int32_t narrow = 0;
    int64_t value = 0;
    if (wide) {
      std::memcpy(&value, shape.data.data() + 8 * i, 8);
    } else {
      std::memcpy(&narrow, shape.data.data() + 4 * i, 4);
      value = narrow;
    }
    said[i] = static_cast<uint64_t>(value);
  }
  if (said == weight.shape) return absl::OkStatus();
  return TensorError(shape, absl::StrCat("says ", ShapeText(said), ", but ", weight.name, " holds ",
                                         ShapeText(weight.shape)));
}

absl::Status CheckNibbleScales(const TensorView& weight, const TensorView& scales) {
  if (!HoldsScales(weight.dtype, scales.dtype)) {
    return TensorError(
        scales, absl::StrCat("type ", InfoOf(scales.dtype).name, " does not hold the scales of ",
                             InfoOf(weight.dtype).name));
  }
  std::vector<uint64_t> needed = weight.shape;
  needed.back() /= kNibbleGroup;
  if (scales.shape == needed) return absl::OkStatus();
  return TensorError(
      scales, absl::StrCat("its shape is ", ShapeText(scales.shape), ", but groups of ",
                           kNibbleGroup, " columns of ", weight.name, " ", ShapeText(weight.shape),
                           " have scales ", ShapeText(needed)));
}

absl::Status ReadNibbleCodes(const TensorView& weight, const RowPart& part,
                             std::span<uint8_t> out) {
  ESSOR_RETURN_IF_ERROR(CheckPart(weight, part));
  ESSOR_CHECK(out.size() * 2 == part.end_col - part.first_col);
  const uint64_t first = part.row * (weight.shape.back() / 2) + part.first_col / 2;
  std::memcpy(out.data(), weight.data.data() + first, out.size());
  return absl::OkStatus();
}

absl::Status ReadNibbleScales(const TensorView& weight, const TensorView& scales,
                              const RowPart& part, std::span<float> out) {
  ESSOR_RETURN_IF_ERROR(CheckPart(weight, part));
  ESSOR_CHECK(out.size() * kNibbleGroup == part.end_col - part.first_col);
  const uint64_t first =
      part.row * (weight.shape.back() / kNibbleGroup) + part.first_col / kNibbleGroup;
  TensorView numbers = scales;
  if (scales.dtype == DType::kU8) numbers.dtype = DType::kF8E8M0;
  ESSOR_RETURN_IF_ERROR(DecodeToFloat(numbers, first, out));
  for (size_t i = 0; i < out.size(); ++i) {
    if (std::isfinite(out[i]) && !(out[i] < 0)) continue;
    return TensorError(scales, absl::StrCat("scale ", first + i, " is ", out[i],
                                            ", not a finite number of at least 0"));
  }
  return absl::OkStatus();
}

absl::Status DecodeNibbleRow(const TensorView& weight, const TensorView& scales,
                             const RowPart& part, std::span<float> out) {
  std::vector<uint8_t> codes(out.size() / 2);
  std::vector<float> row_scales(out.size() / kNibbleGroup);
  ESSOR_RETURN_IF_ERROR(ReadNibbleCodes(weight, part, codes));
  ESSOR_RETURN_IF_ERROR(ReadNibbleScales(weight, scales, part, row_scales));
  for (size_t c = 0; c < out.size(); ++c) {
    const auto code = static_cast<uint8_t>(c % 2 == 0 ? codes[c / 2] & 0x0f : codes[c / 2] >> 4);
    out[c] = CodeValue(weight.dtype, code) * row_scales[c / kNibbleGroup];
  }
  return absl::OkStatus();
}

}  // namespace essor::model
