// One weight slice of a checkpoint into its packed place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "kernels/packed_matrix.h"
#include "model/checkpoint/checkpoint.h"
#include "model/plan/weight_slices.h"

namespace essor::worker {

struct PackTask {
  const model::WeightSlice* slice;
  const model::TensorView* tensor;  // of a 4-bit type as TakeAsNibbles gives it
  const model::TensorView* scales;  // of an e4m3 or 4-bit tensor, else null
  kernels::WeightFormat format;
  std::byte* destination;  // of the whole packed slice
  uint64_t first_row;      // rows of the slice, relative to it; multiple of kPackRowGroup
  uint64_t num_rows;
};

// The part of the mapped file that the task reads (from its first to its last row, as stored).
std::span<const std::byte> SourceBytes(const PackTask& task);

// Where in a block of scales the slice's columns begin (kernels::Fp8Rows); 0 for other formats.
uint32_t BlockOffsetOf(const model::WeightSlice& slice, kernels::WeightFormat format);

// Thread-safe for tasks of different rows. Errors of the checkpoint's decoders.
absl::Status PackRows(const PackTask& task);

// A norm, bias or filter as float32, row by row: `out` has slice.rows.size() * slice.cols.size()
// elements.
absl::Status LoadVector(const model::WeightSlice& slice, const model::TensorView& tensor,
                        float* out);

}  // namespace essor::worker
