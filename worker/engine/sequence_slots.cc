#include "worker/engine/sequence_slots.h"

#include <utility>

#include "absl/strings/str_format.h"
#include "common/status_macros.h"

namespace essor::worker {

SequenceSlots::SequenceSlots(const SlotLimits& limits) : limits_(limits), slots_(limits.num_slots) {
  const uint32_t blocks_max =
      (limits.max_context_tokens + limits.block_tokens - 1) / limits.block_tokens;
  for (Slot& slot : slots_) slot.blocks.reserve(blocks_max);
}

absl::Status SequenceSlots::Apply(const StepInput& input, StepRows* rows) {
  for (const uint32_t slot : input.release_slots) {
    if (slot >= slots_.size() || !slots_[slot].active) {
      return absl::InvalidArgumentError(
          absl::StrFormat("step %d releases slot %d, which is free", input.step_id.value(), slot));
    }
    slots_[slot].active = false;
  }
  for (const StepInput::Start& start : input.starts) ESSOR_RETURN_IF_ERROR(Start(start));

  rows->token_ids.clear();
  rows->positions.clear();
  rows->sequences.clear();
  for (const StepInput::Sequence& sequence : input.sequences) {
    ESSOR_RETURN_IF_ERROR(Extend(sequence, rows));
  }
  for (const StepInput::Sequence& sequence : input.sequences) slots_[sequence.slot].in_step = false;
  if (rows->token_ids.size() > limits_.max_step_tokens) {
    return absl::InvalidArgumentError(absl::StrFormat("step %d has %d tokens, the budget is %d",
                                                      input.step_id.value(), rows->token_ids.size(),
                                                      limits_.max_step_tokens));
  }
  return absl::OkStatus();
}

absl::Status SequenceSlots::Start(const StepInput::Start& start) {
  if (start.slot >= slots_.size() || slots_[start.slot].active) {
    return absl::InvalidArgumentError(
        absl::StrFormat("slot %d of %d cannot start: it is %s", start.slot, slots_.size(),
                        start.slot < slots_.size() ? "taken" : "unknown"));
  }
  Slot& slot = slots_[start.slot];
  slot.active = true;
  slot.sampling = start.sampling;
  slot.context_tokens = 0;
  slot.has_last_token = false;
  slot.blocks.clear();
  return absl::OkStatus();
}

absl::Status SequenceSlots::AppendBlocks(const StepInput::Sequence& sequence, Slot& slot) {
  for (const uint32_t block : sequence.new_blocks) {
    if (block >= limits_.num_blocks) {
      return absl::InvalidArgumentError(absl::StrFormat("slot %d: block %d is not one of %d",
                                                        sequence.slot, block, limits_.num_blocks));
    }
    slot.blocks.push_back(block);
  }
  return absl::OkStatus();
}

absl::Status SequenceSlots::Extend(const StepInput::Sequence& sequence, StepRows* rows) {
  if (sequence.slot >= slots_.size() || !slots_[sequence.slot].active) {
    return absl::InvalidArgumentError(absl::StrFormat("slot %d is not running", sequence.slot));
  }
  Slot& slot = slots_[sequence.slot];
  if (std::exchange(slot.in_step, true)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("slot %d is in the step twice", sequence.slot));
  }
  ESSOR_RETURN_IF_ERROR(AppendBlocks(sequence, slot));
  if (sequence.tokens.empty() && !slot.has_last_token) {
    return absl::InvalidArgumentError(
        absl::StrFormat("slot %d has no sampled token to go on from", sequence.slot));
  }
  const uint32_t num_rows =
      sequence.tokens.empty() ? 1 : static_cast<uint32_t>(sequence.tokens.size());
  const uint64_t context_after = uint64_t{slot.context_tokens} + num_rows;
  const uint64_t capacity = uint64_t{slot.blocks.size()} * limits_.block_tokens;
  if (context_after > capacity || context_after > limits_.max_context_tokens) {
    return absl::InvalidArgumentError(
        absl::StrFormat("slot %d: %d tokens exceed its %d KV slots or the context of %d",
                        sequence.slot, context_after, capacity, limits_.max_context_tokens));
  }
  if (sequence.score_targets.size() > num_rows) {
    return absl::InvalidArgumentError(absl::StrFormat("slot %d: %d score targets for %d rows",
                                                      sequence.slot, sequence.score_targets.size(),
                                                      num_rows));
  }
  rows->sequences.push_back({.first_row = static_cast<uint32_t>(rows->token_ids.size()),
                             .num_rows = num_rows,
                             .context_tokens = slot.context_tokens,
                             .block_table = slot.blocks.data(),
                             .slot = sequence.slot});
  for (uint32_t i = 0; i < num_rows; ++i) {
    const TokenId token = sequence.tokens.empty() ? slot.last_token : sequence.tokens[i];
    if (token >= limits_.vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrFormat("slot %d: token %d is outside the vocabulary of %d", sequence.slot, token,
                          limits_.vocab_size));
    }
    rows->token_ids.push_back(token);
    rows->positions.push_back(slot.context_tokens + i);
  }
  return absl::OkStatus();
}

void SequenceSlots::Commit(const StepInput& input, const StepRows& rows) {
  for (size_t i = 0; i < input.sequences.size(); ++i) {
    slots_[input.sequences[i].slot].context_tokens += rows.sequences[i].num_rows;
  }
}

void SequenceSlots::SetLastToken(uint32_t slot, TokenId token) {
  slots_[slot].last_token = token;
  slots_[slot].has_last_token = true;
}

kernels::RowSampling SequenceSlots::SamplingFor(const StepInput::Sequence& sequence,
                                                const kernels::SequenceRows& rows) const {
  const SequenceSampling& sampling = slots_[sequence.slot].sampling;
  return {.temperature = sampling.temperature,
          .top_p = sampling.top_p,
          .top_k = sampling.top_k,
          .min_p = sampling.min_p,
          .seed = sampling.seed,
          .position = uint64_t{rows.context_tokens} + rows.num_rows,
          .typical_p = sampling.typical_p};
}

}  // namespace essor::worker
