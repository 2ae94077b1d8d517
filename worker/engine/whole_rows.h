// Rows of logits put together from the slices of all ranks: for those who ask for logits, and for
// the draws that cannot do with less.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "worker/device/device_buffer.h"
#include "worker/engine/head_slice.h"

namespace essor::worker {

// Owned and called by the rank's engine thread; all ranks of the stage make the same calls.
class WholeRows {
 public:
  static constexpr uint32_t kRowsAtOnce = 8;

  // `slice` is borrowed.
  WholeRows(const HeadSlice* slice, uint32_t vocab_size, Arena& arena);

  // Calls `take` with each of the rows `wanted` of `logits` [.., slice], in order; its argument is
  // [vocabulary] and valid during the call. Errors are those of the exchange.
  absl::Status Gather(const float* logits, std::span<const uint32_t> wanted,
                      absl::FunctionRef<void(uint32_t index, std::span<const float> row)> take);

  // Bytes of the largest exchange.
  static uint64_t MaxExchangeBytes(const std::vector<model::Range>& vocab_slices);

 private:
  void Assemble(uint32_t index, uint32_t num_gathered);

  const HeadSlice& slice_;
  const uint32_t widest_slice_;
  float* sent_;                   // [kRowsAtOnce, widest_slice_]
  float* gathered_;               // [ranks, kRowsAtOnce, widest_slice_]
  std::vector<float> whole_row_;  // [vocabulary]
};

}  // namespace essor::worker
