// RMSNorm over a width that is spread over the tensor-parallel group: every rank holds some of the
// columns of each row, and the squares are added over the group.
#pragma once

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "kernels/stream.h"
#include "worker/parallel/communicator.h"

namespace essor::worker {

// What a rank holds of the rows of one such norm.
struct SpreadColumns {
  float* x = nullptr;             // [T, width], normalised in place
  uint32_t stride = 0;            // floats from row to row
  uint32_t width = 0;             // columns of this rank; 0 is allowed
  const float* weight = nullptr;  // [width]
  uint32_t total_width = 0;       // columns of the whole row, copies counted once
  // False on all but one of the ranks that hold copies of the same columns, so that their squares
  // are added once.
  bool counts = true;
};

// x[t] = x[t] / sqrt(mean(whole row^2) + eps) * weight, statistics in float32.
//
// Squares are added within a rank in the order of kernels/elementwise.h and then over the group in
// the order of its members: ranks that hold copies keep equal bits, and a row's result does not
// depend on the other rows. Owned and called by the rank's engine thread; everything given is
// borrowed.
class SpreadNorm {
 public:
  // Most norms that can go into one call.
  static constexpr uint32_t kMaxNorms = 2;

  // `squares` is scratch of max_step_tokens floats for each norm of a call.
  SpreadNorm(float eps, float* squares, Communicator* group, kernels::Stream* stream)
      : eps_(eps), squares_(squares), group_(group), stream_(stream) {}

  // Up to kMaxNorms norms of the same `num_rows` tokens with one exchange of num_rows x
  // norms.size() floats; every member of the group calls with equally many. Errors are those of the
  // exchange.
  absl::Status Apply(uint32_t num_rows, std::span<const SpreadColumns> norms);

 private:
  const float eps_;
  float* const squares_;
  Communicator* const group_;
  kernels::Stream* const stream_;
};

}  // namespace essor::worker
