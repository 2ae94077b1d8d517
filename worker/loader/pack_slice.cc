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

// Row of the tensor, taken as [*, cols], that row `row` of the slice is. Rows of interleaved heads
// are looked up at their stored place: canonical row i of a head's first half is stored as 2i, of
// the second half as 2(i - half) + 1.
uint64_t TensorRow(const model::WeightSlice& slice, uint64_t row) {
  const model::WeightBinding& binding = slice.binding;
  uint64_t whole_row = slice.rows.begin + row;
  if (const uint64_t head_dim = binding.interleaved_head_dim; head_dim != 0) {
    const uint64_t half = head_dim / 2;
    const uint64_t in_head = whole_row % head_dim;
    const uint64_t stored = in_head < half ? 2 * in_head : 2 * (in_head - half) + 1;
    whole_row = whole_row - in_head + stored;
  }
  return binding.first_row + whole_row * binding.output_step + binding.first_output;
}

// Columns of the tensor that the weight is bound in, taken as rows: [*, columns].
uint64_t StoredColumns(const model::WeightBinding& binding) {
  return binding.transposed ? binding.rows * binding.output_step : binding.cols;
}

// First element, in the tensor, of that row.
uint64_t ElementOf(const model::WeightSlice& slice, uint64_t row) {
  return TensorRow(slice, row) * slice.binding.cols + slice.cols.begin;
}

// The part of the tensor that row `i` of the task is.
model::RowPart RowOf(const PackTask& task, uint64_t i) {
  return {.row = TensorRow(*task.slice, task.first_row + i),
          .first_col = task.slice->cols.begin,
          .end_col = task.slice->cols.end};
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
  const uint64_t row_elements = StoredColumns(task.slice->binding);
  return model::DecodeToFloat(*task.tensor, row.row * row_elements + row.first_col, out);
}

// Rows of a slice that the tensor holds transposed, as float32: row i is column i there, or one of
// a group of columns in turn. Each task goes over all stored rows, for its own columns.
absl::Status DecodeTransposed(const PackTask& task, std::span<float> rows) {
  const model::WeightSlice& slice = *task.slice;
  const model::WeightBinding& binding = slice.binding;
  const uint64_t step = binding.output_step;
  const uint64_t first_col = (slice.rows.begin + task.first_row) * step;
  std::vector<float> stored(task.num_rows * step);
  for (uint64_t c = 0; c < slice.cols.size(); ++c) {
    const uint64_t stored_row = binding.first_row + slice.cols.begin + c;
    ESSOR_RETURN_IF_ERROR(DecodeRow(
        task, {.row = stored_row, .first_col = first_col, .end_col = first_col + stored.size()},
        stored));
    for (uint64_t i = 0; i < task.num_rows; ++i) {
      rows[i * slice.cols.size() + c] = stored[i * step + binding.first_output];
    }
  }
  return absl::OkStatus();
}

absl::Status DecodeRows(const PackTask& task, std::span<float> rows) {
  if (task.slice->binding.transposed) return DecodeTransposed(task, rows);
  const uint64_t k = task.slice->cols.size();
  for (uint64_t i = 0; i < task.num_rows; ++i) {
    ESSOR_RETURN_IF_ERROR(DecodeRow(task, RowOf(task, i), rows.subspan(i * k, k)));
  }
  return absl::OkStatus();
}

absl::Status PackAsFloat(const PackTask& task) {
  const uint64_t k = task.slice->cols.size();
  std::vector<float> rows(task.num_rows * k);
  ESSOR_RETURN_IF_ERROR(DecodeRows(task, std::span<float>(rows)));
  if (task.format == WeightFormat::kF32) {
    kernels::PackF32(rows, k, TargetOf(task));
    return absl::OkStatus();
  }
  std::vector<uint16_t> rounded(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) rounded[i] = ToBFloat16(rows[i]).bits;
  kernels::PackBF16(rounded, k, TargetOf(task));
  return absl::OkStatus();
}

// The common case of big models: no conversion, only the kernels' order.
absl::Status PackStoredBF16(const PackTask& task) {
  const uint64_t k = task.slice->cols.size();
  const std::byte* data = task.tensor->data.data();
  const model::WeightBinding& binding = task.slice->binding;
  const bool consecutive =
      k == binding.cols && binding.interleaved_head_dim == 0 && binding.output_step == 1;
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
  const uint64_t step = binding.transposed ? 1 : binding.output_step;
  const uint64_t first =
      binding.transposed ? slice.cols.begin : (slice.rows.begin + task.first_row) * step;
  const uint64_t num_rows = binding.transposed ? slice.cols.size() : task.num_rows;
  const uint64_t row_elements = StoredColumns(binding);
  const uint64_t row_bytes = row_elements / dtype.block_elements * dtype.block_bytes;
  const std::span<const std::byte> data = task.tensor->data;
  const uint64_t begin = std::min<uint64_t>((binding.first_row + first) * row_bytes, data.size());
  return data.subspan(begin, std::min<uint64_t>(num_rows * step * row_bytes, data.size() - begin));
}

absl::Status PackRows(const PackTask& task) {
  switch (task.format) {
    case WeightFormat::kF32:
      return PackAsFloat(task);
    case WeightFormat::kBF16:
      return task.tensor->dtype == DType::kBF16 && !task.slice->binding.transposed
                 ? PackStoredBF16(task)
                 : PackAsFloat(task);
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
  const uint64_t step = binding.output_step;
  const uint64_t first = binding.first_row * binding.cols * step + slice.cols.begin * step;
  if (step == 1) {
    return model::DecodeToFloat(tensor, first, std::span<float>(out, slice.cols.size()));
  }
  std::vector<float> stored(slice.cols.size() * step);
  ESSOR_RETURN_IF_ERROR(model::DecodeToFloat(tensor, first, stored));
  for (uint64_t i = 0; i < slice.cols.size(); ++i) out[i] = stored[i * step + binding.first_output];
  return absl::OkStatus();
}

}  // namespace essor::worker
