// What the layers of one step work on.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/attention.h"

namespace essor::worker {

// The rows of a step: T tokens of several sequences, one sequence's tokens consecutive. Borrowed
// for the duration of the step. Of several data-parallel groups one rank sees the rows of its own.
struct Batch {
  uint32_t num_rows = 0;      // T
  const uint32_t* token_ids;  // [T]
  const uint32_t* positions;  // [T]
  std::span<const kernels::SequenceRows> sequences;
  // The same rows, with the block tables of layers that read the last positions only; empty in a
  // model without such layers.
  std::span<const kernels::SequenceRows> window_sequences;
  // Rows of each data-parallel group in the step, this one's (num_rows) among them; empty where
  // there is but one.
  std::span<const uint32_t> group_rows = {};
};

}  // namespace essor::worker
