#include "worker/engine/sequence_slots.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/status_macros.h"

namespace essor::worker {
namespace {

// What a table of one kind of blocks may name.
struct KindLimits {
  const char* name;
  bool exists;  // in the model
  uint32_t num_blocks;
  uint32_t blocks_max;  // of a sequence
};

absl::Status Append(const KindLimits& kind, uint32_t slot, const std::vector<uint32_t>& blocks,
                    std::vector<uint32_t>& table) {
  if (!kind.exists && !blocks.empty()) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "slot %d: %ss for a model that has no layers of their kind", slot, kind.name));
  }
  if (table.size() + blocks.size() > kind.blocks_max) {
    return absl::InvalidArgumentError(
        absl::StrFormat("slot %d: %d %ss, where the longest context takes %d", slot,
                        table.size() + blocks.size(), kind.name, kind.blocks_max));
  }
  for (const uint32_t block : blocks) {
    if (block >= kind.num_blocks) {
      return absl::InvalidArgumentError(absl::StrFormat("slot %d: %s %d is not one of %d", slot,
                                                        kind.name, block, kind.num_blocks));
    }
    table.push_back(block);
  }
  return absl::OkStatus();
}

}  // namespace

SequenceSlots::SequenceSlots(const SlotLimits& limits)
    : limits_(limits),
      blocks_max_((limits.max_context_tokens + limits.block_tokens - 1) / limits.block_tokens),
      slots_(limits.num_slots),
      snapshot_tokens_(limits.num_snapshots, 0),
      saved_in_step_(limits.num_snapshots, false) {
  for (Slot& slot : slots_) {
    if (limits.kinds.full) slot.blocks.reserve(blocks_max_);
    if (limits.kinds.window_tokens > 0) slot.window_blocks.reserve(blocks_max_);
  }
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
  for (const StepInput::Copy& copy : input.copies) ESSOR_RETURN_IF_ERROR(CheckCopy(copy));

  rows->token_ids.clear();
  rows->positions.clear();
  rows->sequences.clear();
  rows->window_sequences.clear();
  for (const StepInput::Sequence& sequence : input.sequences) {
    ESSOR_RETURN_IF_ERROR(Extend(sequence, rows));
  }
  for (const StepInput::Sequence& sequence : input.sequences) {
    slots_[sequence.slot].in_step = false;
    if (sequence.save_snapshot.has_value()) saved_in_step_[*sequence.save_snapshot] = false;
  }
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
  if (start.first_window_block > blocks_max_) {
    return absl::InvalidArgumentError(
        absl::StrFormat("slot %d: first_window_block %d, where the longest context takes %d blocks",
                        start.slot, start.first_window_block, blocks_max_));
  }
  Slot& slot = slots_[start.slot];
  slot.active = true;
  slot.sampling = start.sampling;
  slot.context_tokens = start.context_tokens;
  slot.has_last_token = false;
  slot.blocks.clear();
  slot.window_blocks.assign(start.first_window_block, 0);
  ESSOR_RETURN_IF_ERROR(AppendBlocks(start.slot, start.blocks, start.window_blocks));
  return CheckStart(start, slot);
}

absl::Status SequenceSlots::CheckStart(const StepInput::Start& start, const Slot& slot) const {
  const uint32_t context = start.context_tokens;
  if (context > KvSlots(slot) || context > limits_.max_context_tokens) {
    return absl::InvalidArgumentError(
        absl::StrFormat("slot %d: context_tokens %d exceed its %d KV slots or the context of %d",
                        start.slot, context, KvSlots(slot), limits_.max_context_tokens));
  }
  // The next token is the last of a window of its own.
  const uint32_t window = limits_.kinds.window_tokens;
  const uint32_t first_seen = window == 0 ? 0 : context + 1 - std::min(context + 1, window);
  if (start.first_window_block > first_seen / limits_.block_tokens) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "slot %d: first_window_block %d begins behind token %d, which the next one sees",
        start.slot, start.first_window_block, first_seen));
  }
  return CheckRestored(start);
}

absl::Status SequenceSlots::CheckRestored(const StepInput::Start& start) const {
  if (!start.restore_snapshot.has_value()) {
    if (!limits_.kinds.states || start.context_tokens == 0) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrFormat(
        "slot %d: context_tokens %d without restore_snapshot", start.slot, start.context_tokens));
  }
  const uint32_t snapshot = *start.restore_snapshot;
  if (snapshot >= snapshot_tokens_.size()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("slot %d: restore_snapshot %d is not one of %d", start.slot, snapshot,
                        snapshot_tokens_.size()));
  }
  if (snapshot_tokens_[snapshot] != start.context_tokens || start.context_tokens == 0) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "slot %d: restore_snapshot %d holds the states after %d tokens, context_tokens is %d",
        start.slot, snapshot, snapshot_tokens_[snapshot], start.context_tokens));
  }
  return absl::OkStatus();
}

absl::Status SequenceSlots::CheckCopy(const StepInput::Copy& copy) const {
  if (copy.group != limits_.group) {
    return absl::InvalidArgumentError(
        absl::StrFormat("copy of a block of group %d, not of %d", copy.group, limits_.group));
  }
  const uint32_t num_blocks = copy.window ? limits_.num_window_blocks : limits_.num_blocks;
  if (copy.from >= num_blocks || copy.to >= num_blocks || copy.from == copy.to) {
    return absl::InvalidArgumentError(
        absl::StrFormat("copy from %s %d to %d: they are not two of %d",
                        copy.window ? "window block" : "block", copy.from, copy.to, num_blocks));
  }
  return absl::OkStatus();
}

absl::Status SequenceSlots::AppendBlocks(uint32_t slot, const std::vector<uint32_t>& blocks,
                                         const std::vector<uint32_t>& window_blocks) {
  const KindLimits all{.name = "block",
                       .exists = limits_.kinds.full,
                       .num_blocks = limits_.num_blocks,
                       .blocks_max = blocks_max_};
  const KindLimits window{.name = "window block",
                          .exists = limits_.kinds.window_tokens > 0,
                          .num_blocks = limits_.num_window_blocks,
                          .blocks_max = blocks_max_};
  ESSOR_RETURN_IF_ERROR(Append(all, slot, blocks, slots_[slot].blocks));
  return Append(window, slot, window_blocks, slots_[slot].window_blocks);
}

uint64_t SequenceSlots::KvSlots(const Slot& slot) const {
  uint64_t blocks = blocks_max_;
  if (limits_.kinds.full) blocks = std::min<uint64_t>(blocks, slot.blocks.size());
  if (limits_.kinds.window_tokens > 0) {
    blocks = std::min<uint64_t>(blocks, slot.window_blocks.size());
  }
  return blocks * limits_.block_tokens;
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
  ESSOR_RETURN_IF_ERROR(MarkSaved(sequence));
  ESSOR_RETURN_IF_ERROR(
      AppendBlocks(sequence.slot, sequence.new_blocks, sequence.new_window_blocks));
  if (sequence.tokens.empty() && !slot.has_last_token) {
    return absl::InvalidArgumentError(
        absl::StrFormat("slot %d has no sampled token to go on from", sequence.slot));
  }
  const uint32_t num_rows =
      sequence.tokens.empty() ? 1 : static_cast<uint32_t>(sequence.tokens.size());
  const uint64_t context_after = uint64_t{slot.context_tokens} + num_rows;
  if (context_after > KvSlots(slot) || context_after > limits_.max_context_tokens) {
    return absl::InvalidArgumentError(
        absl::StrFormat("slot %d: %d tokens exceed its %d KV slots or the context of %d",
                        sequence.slot, context_after, KvSlots(slot), limits_.max_context_tokens));
  }
  if (sequence.score_targets.size() > num_rows) {
    return absl::InvalidArgumentError(absl::StrFormat("slot %d: %d score targets for %d rows",
                                                      sequence.slot, sequence.score_targets.size(),
                                                      num_rows));
  }
  return LayOut(sequence, slot, num_rows, rows);
}

absl::Status SequenceSlots::MarkSaved(const StepInput::Sequence& sequence) {
  if (!sequence.save_snapshot.has_value()) return absl::OkStatus();
  const uint32_t snapshot = *sequence.save_snapshot;
  if (snapshot >= saved_in_step_.size()) {
    return absl::InvalidArgumentError(absl::StrFormat("slot %d: save_snapshot %d is not one of %d",
                                                      sequence.slot, snapshot,
                                                      saved_in_step_.size()));
  }
  if (saved_in_step_[snapshot]) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "slot %d: save_snapshot %d is another slot's too", sequence.slot, snapshot));
  }
  saved_in_step_[snapshot] = true;
  return absl::OkStatus();
}

absl::Status SequenceSlots::LayOut(const StepInput::Sequence& sequence, const Slot& slot,
                                   uint32_t num_rows, StepRows* rows) const {
  rows->sequences.push_back({.first_row = static_cast<uint32_t>(rows->token_ids.size()),
                             .num_rows = num_rows,
                             .context_tokens = slot.context_tokens,
                             .block_table = slot.blocks.data(),
                             .slot = sequence.slot});
  if (limits_.kinds.window_tokens > 0) {
    rows->window_sequences.push_back(rows->sequences.back());
    rows->window_sequences.back().block_table = slot.window_blocks.data();
  }
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
    const StepInput::Sequence& sequence = input.sequences[i];
    Slot& slot = slots_[sequence.slot];
    slot.context_tokens += rows.sequences[i].num_rows;
    if (sequence.save_snapshot.has_value()) {
      snapshot_tokens_[*sequence.save_snapshot] = slot.context_tokens;
    }
  }
}

void SequenceSlots::SetLastToken(uint32_t slot, TokenId token) {
  slots_[slot].last_token = token == kNoToken ? 0 : token;
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
