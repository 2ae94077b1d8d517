// What a rank of the last stage knows of its sequences' tokens, and what that changes in the logits
// of the next one: penalties, biases, and tokens that may not come yet.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "kernels/logit_adjustment.h"
#include "model/plan/parallel_plan.h"
#include "worker/device/device_buffer.h"
#include "worker/engine/sequence_slots.h"
#include "worker/engine/step.h"

namespace essor::worker {

// Owned and called by the rank's engine thread, beside SequenceSlots. Follows the steps alone:
// every row's token is counted when it is computed, so a sampled one is from the next step on.
class TokenHistory {
 public:
  struct Limits {
    uint32_t num_slots = 0;
    uint32_t max_context_tokens = 0;
    model::Range vocab;  // the slice whose logits this rank has
  };
  // Most probable tokens that may be asked for.
  static constexpr uint32_t kMaxLogprobs = 64;

  // Memory comes from `arena`, whose pages are only touched for sequences with penalties.
  TokenHistory(const Limits& limits, Arena& arena);

  // After SequenceSlots::Apply() of the same step. InvalidArgument naming slot and field when a
  // start lacks the tokens before its context, or more log-probabilities are asked for than may be.
  absl::Status Apply(const StepInput& input, const StepRows& rows);

  // Of a slot that has been started.
  const SequenceSampling& SamplingOf(uint32_t slot) const { return slots_[slot].sampling; }

  // What changes in the logits for the token at `position`, in columns of this rank's slice;
  // nothing where the sequence asks for no change. Valid until the next Apply(); `row` is left to
  // the caller.
  std::optional<kernels::RowAdjustment> AdjustmentFor(uint32_t slot, uint64_t position) const;

 private:
  struct Slot {
    SequenceSampling sampling;
    uint32_t prompt_tokens = 0;
    bool counts = false;        // has penalties
    kernels::TokenMark* marks;  // [slice]
    uint32_t* marked;           // the columns that have marks
    uint32_t num_marked = 0;
    std::vector<std::pair<uint32_t, float>> biases;  // columns of the slice
    std::vector<uint32_t> late;                      // likewise
  };

  absl::Status Start(const StepInput::Start& start);
  void Add(Slot& slot, TokenId token, uint64_t position);
  bool Holds(TokenId token) const {
    return token >= limits_.vocab.begin && token < limits_.vocab.end;
  }
  uint32_t ColumnOf(TokenId token) const {
    return token - static_cast<uint32_t>(limits_.vocab.begin);
  }

  const Limits limits_;
  std::vector<Slot> slots_;
};

}  // namespace essor::worker
