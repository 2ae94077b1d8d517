// Rows on their way to experts on other devices and back. Dims: T tokens, k experts per token, H
// hidden size.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/stream.h"

namespace essor::kernels {

// y[i] = x[row_ids[i]], in float32 or rounded to bfloat16 (to nearest, ties to even; NaN stays
// NaN).
struct GatherRowsParams {
  const float* x;           // [any, H]
  const uint32_t* row_ids;  // [T]
  uint32_t num_rows;        // T
  uint32_t width;           // H
  bool bfloat16 = false;
  std::byte* y;  // [T, H] of the type, aligned as it
};
void GatherRows(const GatherRowsParams& params, Stream& stream);

// y[i] = x[i], `count` values of bfloat16. x and y do not overlap.
void WidenBFloat16(const std::byte* x, float* y, uint64_t count, Stream& stream);

// y[t] = sum over j of expert_weights[t, j] * output(t, j), in the order of j, where output(t, j)
// is the sum over s of rows[row_ids[t, j, s]], in the order of s: the slices of one expert. With
// one slice and the rows of MoeExpertRows (linear.h) the bits are those of MoeFfn.
struct CombineExpertsParams {
  const float* rows;            // [any, H]
  const uint32_t* row_ids;      // [T, k, num_slices]
  const float* expert_weights;  // [T, k]; null: all 1
  uint32_t num_rows;            // T
  uint32_t top_k;               // k
  uint32_t num_slices;
  uint32_t width;  // H
  float* y;        // [T, H], overwritten
};
void CombineExperts(const CombineExpertsParams& params, Stream& stream);

}  // namespace essor::kernels
