#include "worker/layers/spread_norm.h"

#include "common/check.h"
#include "common/status_macros.h"
#include "kernels/elementwise.h"

namespace essor::worker {

absl::Status SpreadNorm::Apply(uint32_t num_rows, std::span<const SpreadColumns> norms) {
  ESSOR_CHECK(norms.size() <= kMaxNorms);
  const auto stride = static_cast<uint32_t>(norms.size());
  for (uint32_t i = 0; i < stride; ++i) {
    kernels::RowSquares({.x = norms[i].x,
                         .x_stride = norms[i].stride,
                         .num_rows = num_rows,
                         .width = norms[i].counts ? norms[i].width : 0,
                         .squares = squares_ + i,
                         .squares_stride = stride},
                        *stream_);
  }
  ESSOR_RETURN_IF_ERROR(group_->AllReduceSum({squares_, size_t{num_rows} * stride}));
  for (uint32_t i = 0; i < stride; ++i) {
    kernels::NormBySquares({.x = norms[i].x,
                            .x_stride = norms[i].stride,
                            .num_rows = num_rows,
                            .width = norms[i].width,
                            .weight = norms[i].weight,
                            .squares = squares_ + i,
                            .squares_stride = stride,
                            .total_width = norms[i].total_width,
                            .eps = eps_},
                           *stream_);
  }
  return absl::OkStatus();
}

}  // namespace essor::worker
