// What a rank remembers of the sequences it serves between steps, so that a steady decode step
// needs only slot numbers.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "kernels/attention.h"
#include "kernels/sampling.h"
#include "worker/engine/step.h"

namespace essor::worker {

struct SlotLimits {
  uint32_t num_slots = 0;
  uint32_t num_blocks = 0;
  uint32_t block_tokens = 0;
  uint32_t max_context_tokens = 0;
  uint32_t max_step_tokens = 0;
  uint32_t vocab_size = 0;
};

// The rows of a step, laid out for the layers. Storage is reserved once and reused.
struct StepRows {
  std::vector<uint32_t> token_ids;               // [T]
  std::vector<uint32_t> positions;               // [T]
  std::vector<kernels::SequenceRows> sequences;  // parallel to StepInput::sequences
};

// Owned and called by the rank's engine thread. Each step: Apply(), forward pass, then Commit()
// with what was sampled.
class SequenceSlots {
 public:
  explicit SequenceSlots(const SlotLimits& limits);

  // Releases, starts and extends as `input` says and lays out its rows. InvalidArgument naming slot
  // and field when the step contradicts the state (unknown or taken slot, block or token id out of
  // range, a slot named twice, too few blocks, more rows than a step may have); the slots are then
  // unusable and the epoch has to end, because this rank no longer agrees with the others.
  absl::Status Apply(const StepInput& input, StepRows* rows);

  // `rows` was computed: contexts grow.
  void Commit(const StepInput& input, const StepRows& rows);
  // The token sampled for `slot`: its next input.
  void SetLastToken(uint32_t slot, TokenId token);

  // The sampling key and filter for the token after the last row of `input.sequences[index]`; valid
  // between Apply() and Commit().
  kernels::RowSampling SamplingFor(const StepInput::Sequence& sequence,
                                   const kernels::SequenceRows& rows) const;

 private:
  struct Slot {
    bool active = false;
    bool in_step = false;  // while a step is laid out: named by it
    SequenceSampling sampling;
    uint32_t context_tokens = 0;  // in the KV cache
    bool has_last_token = false;
    TokenId last_token = 0;
    std::vector<uint32_t> blocks;
  };

  absl::Status Start(const StepInput::Start& start);
  absl::Status Extend(const StepInput::Sequence& sequence, StepRows* rows);
  absl::Status AppendBlocks(const StepInput::Sequence& sequence, Slot& slot);

  const SlotLimits limits_;
  std::vector<Slot> slots_;
};

}  // namespace essor::worker
