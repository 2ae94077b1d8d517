#include "worker/loader/pack_slice.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/float16.h"
#include "common/status_macros.h"
#include "model/checkpoint/fp8_blocks.h"
#include "model/checkpoint/nibble_groups.h"

namespace essor::worker {
namespace {

using kernels::PackTarget;
using kernels::WeightFormat;

// Row of the tensor that row `row` of the slice is. Rows of interleaved heads are looked up at
// their stored place: canonical row i of a head's first half is stored as 2i, of the second half as
// 2(i - half) + 1.
uint64_t TensorRow(const model::WeightSlice& slice, uint64_t row) {
  const model::WeightBinding& binding = slice.binding;
  uint64_t whole_row = slice.rows.begin + row;
  if (const uint64_t head_dim = binding.interleaved_head_dim; head_dim != 0) {
    const uint64_t half = head_dim / 2;
    const uint64_t in_head = whole_row % head_dim;
    const uint64_t stored = in_head < half ? 2 * in_head : 2 * (in_head - half) + 1;
    whole_row = whole_row - in_head + stored;
  }
  return binding.first_row + whole_row * binding.output_step;
}

// First element, in the tensor, of that row.
uint64_t ElementOf(const model::WeightSlice& slice, uint64_t row) {
  return TensorRow(slice, row) * slice.binding.TensorRowElements() + slice.binding.first_col +
         slice.cols.begin;
}

// The part of the tensor that row `i` of the task is.
model::RowPart RowOf(const PackTask& task, uint64_t i) {
  const uint64_t first_col = task.slice->binding.first_col;
  return {.row = TensorRow(*task.slice, task.first_row + i),
          .first_col = first_col + task.slice->cols.begin,
          .end_col = first_col + task.slice->cols.end};
}

// Where the tensor holds the transpose: the part of it that column `c` of the task's rows is, and
// what stands between them.
model::RowPart ColumnOf(const PackTask& task, uint64_t c) {
  const model::WeightSlice& slice = *task.slice;
  const model::WeightBinding& binding = slice.binding;
  const uint64_t first =
      binding.first_col + (slice.rows.begin + task.first_row) * binding.output_step;
  return {.row = binding.first_row + slice.cols.begin + c,
          .first_col = first,
          .end_col = first + binding.OutputSpan(task.num_rows)};
}

PackTarget TargetOf(const PackTask& task) {
  return {.destination = task.destination,
          .n = static_cast<uint32_t>(task.slice->rows.size()),
          .k = static_cast<uint32_t>(task.slice->cols.size()),
          .first_row = static_cast<uint32_t>(task.first_row),
          .num_rows = static_cast<uint32_t>(task.num_rows),
          .block_offset = BlockOffsetOf(*task.slice, task.format)};
}

// A part of a row of the tensor as float32.
absl::Status DecodeRow(const PackTask& task, const model::RowPart& row, std::span<float> out) {
  if (task.scales != nullptr) {
    return model::IsNibbles(task.tensor->dtype)
               ? model::DecodeNibbleRow(*task.tensor, *task.scales, row, out)
               : model::DecodeFp8Row(*task.tensor, *task.scales, row, out);
  }
  const uint64_t row_elements = task.slice->binding.TensorRowElements();
  return model::DecodeToFloat(*task.tensor, row.row * row_elements + row.first_col, out);
}

std::vector<uint16_t> RoundToBF16(const std::vector<float>& values) {
  std::vector<uint16_t> rounded(values.size());
  for (size_t i = 0; i < values.size(); ++i) rounded[i] = ToBFloat16(values[i]).bits;
  return rounded;
}

absl::Status PackAsFloat(const PackTask& task) {
  const uint64_t k = task.slice->cols.size();
  std::vector<float> rows(task.num_rows * k);
  for (uint64_t i = 0; i < task.num_rows; ++i) {
    ESSOR_RETURN_IF_ERROR(DecodeRow(task, RowOf(task, i), std::span(rows).subspan(i * k, k)));
  }
  if (task.format == WeightFormat::kF32) {
    kernels::PackF32(rows, k, TargetOf(task));
  } else {
    kernels::PackBF16(RoundToBF16(rows), k, TargetOf(task));
  }
  return absl::OkStatus();
}

// Of a slice that the tensor holds transposed: columns are decoded as they stand there, then freed
// of what stands between their elements.
absl::Status PackColumnsAsFloat(const PackTask& task) {
  const uint64_t n = task.num_rows;
  const model::WeightBinding& binding = task.slice->binding;
  std::vector<float> stored(binding.OutputSpan(n));
  std::vector<float> columns(task.slice->cols.size() * n);
  for (uint64_t c = 0; c < task.slice->cols.size(); ++c) {
    ESSOR_RETURN_IF_ERROR(DecodeRow(task, ColumnOf(task, c), stored));
    for (uint64_t i = 0; i < n; ++i) columns[c * n + i] = stored[i * binding.output_step];
  }
  if (task.format == WeightFormat::kF32) {
    kernels::PackF32Columns(columns, n, TargetOf(task));
  } else {
    const std::vector<uint16_t> rounded = RoundToBF16(columns);
    kernels::PackBF16Columns(std::as_bytes(std::span(rounded)), n, TargetOf(task));
  }
  return absl::OkStatus();
}

// Without conversion, straight from the mapped file.
absl::Status PackStoredBF16Columns(const PackTask& task) {
  const uint64_t row_elements = task.slice->binding.TensorRowElements();
  const model::RowPart first = ColumnOf(task, 0);
  const model::RowPart last = ColumnOf(task, task.slice->cols.size() - 1);
  const uint64_t begin = first.row * row_elements + first.first_col;
  const uint64_t end = last.row * row_elements + last.end_col;
  kernels::PackBF16Columns(task.tensor->data.subspan(2 * begin, 2 * (end - begin)), row_elements,
                           TargetOf(task));
  return absl::OkStatus();
}

// A slice that the tensor holds transposed; such are never held in quantised blocks. Big models
// that are published so (Llama 4) have their outputs one after the other; those in turn (gpt-oss)
// are published in 4 bits, by rows, and their plain form may take the longer way.
absl::Status PackColumns(const PackTask& task) {
  return task.format == WeightFormat::kBF16 && task.tensor->dtype == DType::kBF16 &&
                 task.slice->binding.output_step == 1
             ? PackStoredBF16Columns(task)
             : PackColumnsAsFloat(task);
}

// The common case of big models: no conversion, only the kernels' order.
absl::Status PackStoredBF16(const PackTask& task) {
  const uint64_t k = task.slice->cols.size();
  const std::byte* data = task.tensor->data.data();
  const model::WeightBinding& binding = task.slice->binding;
  const bool consecutive = k == binding.TensorRowElements() && binding.interleaved_head_dim == 0 &&
                           binding.output_step == 1;
  const std::byte* first = data + 2 * ElementOf(*task.slice, task.first_row);
  if (consecutive && reinterpret_cast<uintptr_t>(first) % alignof(uint16_t) == 0) {
    kernels::PackBF16({reinterpret_cast<const uint16_t*>(first), task.num_rows * k}, k,
                      TargetOf(task));
    return absl::OkStatus();
  }
  std::vector<uint16_t> rows(task.num_rows * k);
  for (uint64_t i = 0; i < task.num_rows; ++i) {
    std::memcpy(rows.data() + i * k, data + 2 * ElementOf(*task.slice, task.first_row + i), 2 * k);
  }
  kernels::PackBF16(rows, k, TargetOf(task));
  return absl::OkStatus();
}

absl::Status PackQuantised8(const PackTask& task) {
  const uint64_t k = task.slice->cols.size();
  std::vector<int8_t> values(task.num_rows * k);
  std::vector<uint16_t> scales(values.size() / 32);
  for (uint64_t i = 0; i < task.num_rows; ++i) {
    ESSOR_RETURN_IF_ERROR(model::ReadQ8(*task.tensor, ElementOf(*task.slice, task.first_row + i),
                                        {.values = std::span(values).subspan(i * k, k),
                                         .scales = std::span(scales).subspan(i * k / 32, k / 32)}));
  }
  kernels::PackQ8({.values = values, .scales = scales, .minima = {}}, k, TargetOf(task));
  return absl::OkStatus();
}

absl::Status PackQuantised4(const PackTask& task) {
  const uint64_t k = task.slice->cols.size();
  std::vector<uint8_t> values(task.num_rows * k);
  std::vector<float> scales(values.size() / 32);
  std::vector<float> minima(values.size() / 32);
  for (uint64_t i = 0; i < task.num_rows; ++i) {
    ESSOR_RETURN_IF_ERROR(model::ReadQ4(*task.tensor, ElementOf(*task.slice, task.first_row + i),
                                        {.values = std::span(values).subspan(i * k, k),
                                         .scales = std::span(scales).subspan(i * k / 32, k / 32),
                                         .minima = std::span(minima).subspan(i * k / 32, k / 32)}));
  }
  // Q4_0 and Q4_1 scales are halves already; Q4_K's products of two factors round to 11 bits here,
  // well below the 4-bit quantisation itself.
  std::vector<uint16_t> half_scales(scales.size());
  std::vector<uint16_t> half_minima(minima.size());
  for (size_t i = 0; i < scales.size(); ++i) {
    half_scales[i] = ToFloat16(scales[i]).bits;
    half_minima[i] = ToFloat16(minima[i]).bits;
  }
  const std::span<const int8_t> nibbles(reinterpret_cast<const int8_t*>(values.data()),
                                        values.size());
  kernels::PackQ4({.values = nibbles, .scales = half_scales, .minima = half_minima}, k,
                  TargetOf(task));
  return absl::OkStatus();
}

absl::Status PackFloat8(const PackTask& task) {
  const uint64_t k = task.slice->cols.size();
  const uint64_t blocks = model::NumFp8Blocks(RowOf(task, 0));
  std::vector<uint8_t> codes(task.num_rows * k);
  std::vector<float> scales(task.num_rows * blocks);
  for (uint64_t i = 0; i < task.num_rows; ++i) {
    const model::RowPart row = RowOf(task, i);
    ESSOR_RETURN_IF_ERROR(
        model::ReadFp8Codes(*task.tensor, row, std::span(codes).subspan(i * k, k)));
    ESSOR_RETURN_IF_ERROR(model::ReadFp8Scales(*task.tensor, *task.scales, row,
                                               std::span(scales).subspan(i * blocks, blocks)));
  }
  kernels::PackFp8({.codes = codes, .scales = scales, .scale_stride = blocks}, k, TargetOf(task));
  return absl::OkStatus();
}

absl::Status PackStoredNibbles(const PackTask& task) {
  const uint64_t k = task.slice->cols.size();
  const uint64_t groups = k / model::kNibbleGroup;
  std::vector<uint8_t> codes(task.num_rows * k / 2);
  std::vector<float> scales(task.num_rows * groups);
  for (uint64_t i = 0; i < task.num_rows; ++i) {
    const model::RowPart row = RowOf(task, i);
    ESSOR_RETURN_IF_ERROR(
        model::ReadNibbleCodes(*task.tensor, row, std::span(codes).subspan(i * k / 2, k / 2)));
    ESSOR_RETURN_IF_ERROR(model::ReadNibbleScales(*task.tensor, *task.scales, row,
                                                  std::span(scales).subspan(i * groups, groups)));
  }
  // Exact for powers of two and for scales that are bfloat16 already; others are rounded as plain
  // weights would be.
  std::vector<uint16_t> rounded(scales.size());
  for (size_t i = 0; i < scales.size(); ++i) rounded[i] = ToBFloat16(scales[i]).bits;
  kernels::PackNibbles(task.format, {.codes = codes, .scales = rounded}, k, TargetOf(task));
  return absl::OkStatus();
}

}  // namespace

uint32_t BlockOffsetOf(const model::WeightSlice& slice, WeightFormat format) {
  static_assert(kernels::kFp8BlockColumns == model::kFp8BlockSize);
  return format == WeightFormat::kFp8
             ? static_cast<uint32_t>(slice.cols.begin % kernels::kFp8BlockColumns)
             : 0;
}

std::span<const std::byte> SourceBytes(const PackTask& task) {
  const model::WeightBinding& binding = task.slice->binding;
  const model::WeightSlice& slice = *task.slice;
  const DTypeInfo& dtype = InfoOf(task.tensor->dtype);
  const uint64_t first = binding.transposed
                             ? slice.cols.begin
                             : (slice.rows.begin + task.first_row) * binding.output_step;
  const uint64_t num_rows =
      binding.transposed ? slice.cols.size() : binding.OutputSpan(task.num_rows);
  const uint64_t row_bytes = binding.TensorRowElements() / dtype.block_elements * dtype.block_bytes;
  const std::span<const std::byte> data = task.tensor->data;
  const uint64_t begin = std::min<uint64_t>((binding.first_row + first) * row_bytes, data.size());
  return data.subspan(begin, std::min<uint64_t>(num_rows * row_bytes, data.size() - begin));
}

absl::Status PackRows(const PackTask& task) {
  if (task.slice->binding.transposed) return PackColumns(task);
  switch (task.format) {
    case WeightFormat::kF32:
      return PackAsFloat(task);
    case WeightFormat::kBF16:
      return task.tensor->dtype == DType::kBF16 ? PackStoredBF16(task) : PackAsFloat(task);
    case WeightFormat::kQ8:
      return PackQuantised8(task);
    case WeightFormat::kQ4:
      return PackQuantised4(task);
    case WeightFormat::kFp8:
      return PackFloat8(task);
    case WeightFormat::kFp4:
    case WeightFormat::kInt4:
      return PackStoredNibbles(task);
  }
  return absl::InternalError("unknown weight format");
}

absl::Status LoadVector(const model::WeightSlice& slice, const model::TensorView& tensor,
                        float* out) {
  const model::WeightBinding& binding = slice.binding;
  const uint64_t width = slice.cols.size();
  const uint64_t step = binding.output_step;
  const uint64_t row_elements = binding.TensorRowElements();
  std::vector<float> stored(binding.OutputSpan(width));
  for (uint64_t row = 0; row < slice.rows.size(); ++row) {
    const uint64_t first = (binding.first_row + slice.rows.begin + row) * row_elements +
                           binding.first_col + slice.cols.begin * step;
    ESSOR_RETURN_IF_ERROR(model::DecodeToFloat(tensor, first, stored));
    for (uint64_t i = 0; i < width; ++i) {
      out[row * width + i] = stored[i * step] + (binding.zero_centred ? 1.0f : 0.0f);
    }
  }
  return absl::OkStatus();
}

}  // namespace essor::worker
