// What a rank remembers of the sequences it serves between steps, so that a steady decode step
// needs only slot numbers.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "kernels/attention.h"
#include "kernels/sampling.h"
#include "model/plan/kv_kinds.h"
#include "worker/engine/step.h"

namespace essor::worker {

struct SlotLimits {
  uint32_t num_slots = 0;
  uint32_t num_blocks = 0;
  uint32_t block_tokens = 0;
  uint32_t max_context_tokens = 0;
  uint32_t max_step_tokens = 0;
  uint32_t vocab_size = 0;
  uint32_t num_window_blocks = 0;
  uint32_t num_snapshots = 0;
  model::KvKinds kinds = {.full = true};
  uint32_t group = 0;  // data-parallel; steps say nothing of the others (group_step.h)
};

// The rows of a step, laid out for the layers. Storage is reserved once and reused.
struct StepRows {
  std::vector<uint32_t> token_ids;               // [T]
  std::vector<uint32_t> positions;               // [T]
  std::vector<kernels::SequenceRows> sequences;  // parallel to StepInput::sequences
  // The same rows with the tables of windowed layers; empty in a model without such.
  std::vector<kernels::SequenceRows> window_sequences;
};

// Owned and called by the rank's engine thread. Each step: Apply(), forward pass, then Commit()
// with what was sampled.
class SequenceSlots {
 public:
  explicit SequenceSlots(const SlotLimits& limits);

  // Releases, starts and extends as `input` says and lays out its rows. InvalidArgument naming slot
  // and field when the step contradicts the state (unknown or taken slot, block, snapshot or token
  // id out of range, blocks of a kind that the model does not have, a slot named twice, too few
  // blocks, a start whose window blocks or states do not belong to its context, more rows than a
  // step may have); the slots are then unusable and the epoch has to end, because this rank no
  // longer agrees with the others. Copies and snapshots are checked here and made by the caller.
  absl::Status Apply(const StepInput& input, StepRows* rows);

  // `rows` was computed: contexts grow, and snapshots hold them.
  void Commit(const StepInput& input, const StepRows& rows);
  // The token sampled for `slot`: its next input. Where it is kNoToken the sequence has come to its
  // end; what was queued for it meanwhile goes on from token 0, and nobody waits for the result.
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
    // Entry i is block i of the sequence as well; those before its first window block are 0 and
    // never looked up, as those are that lie behind the window by now.
    std::vector<uint32_t> window_blocks;
  };

  absl::Status Start(const StepInput::Start& start);
  absl::Status CheckStart(const StepInput::Start& start, const Slot& slot) const;
  absl::Status CheckRestored(const StepInput::Start& start) const;
  absl::Status CheckCopy(const StepInput::Copy& copy) const;
  absl::Status Extend(const StepInput::Sequence& sequence, StepRows* rows);
  absl::Status MarkSaved(const StepInput::Sequence& sequence);
  absl::Status LayOut(const StepInput::Sequence& sequence, const Slot& slot, uint32_t num_rows,
                      StepRows* rows) const;
  absl::Status AppendBlocks(uint32_t slot, const std::vector<uint32_t>& blocks,
                            const std::vector<uint32_t>& window_blocks);
  // Tokens that the slot's blocks have room for, of both kinds where the model has both.
  uint64_t KvSlots(const Slot& slot) const;

  const SlotLimits limits_;
  const uint32_t blocks_max_;  // of a sequence
  std::vector<Slot> slots_;
  std::vector<uint32_t> snapshot_tokens_;  // whose states are in the snapshot; 0 = nothing is
  std::vector<bool> saved_in_step_;        // while a step is laid out: snapshots it saves to
};

}  // namespace essor::worker
