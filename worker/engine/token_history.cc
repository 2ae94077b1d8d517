#include "worker/engine/token_history.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "common/status_macros.h"

namespace essor::worker {
namespace {

bool HasPenalties(const SequenceSampling& sampling) {
  return sampling.repetition_penalty != 1 || sampling.presence_penalty != 0 ||
         sampling.frequency_penalty != 0;
}

}  // namespace

TokenHistory::TokenHistory(const Limits& limits, Arena& arena)
    : limits_(limits), slots_(limits.num_slots) {
  const uint64_t width = limits.vocab.size();
  for (Slot& slot : slots_) {
    slot.marks = arena.Take<kernels::TokenMark>(width);
    slot.marked = arena.Take<uint32_t>(std::min<uint64_t>(width, limits.max_context_tokens));
  }
}

absl::Status TokenHistory::Apply(const StepInput& input, const StepRows& rows) {
  for (const StepInput::Start& start : input.starts) ESSOR_RETURN_IF_ERROR(Start(start));
  for (const kernels::SequenceRows& sequence : rows.sequences) {
    Slot& slot = slots_[sequence.slot];
    if (!slot.counts) continue;
    for (uint32_t row = sequence.first_row; row < sequence.first_row + sequence.num_rows; ++row) {
      Add(slot, rows.token_ids[row], rows.positions[row]);
    }
  }
  return absl::OkStatus();
}

absl::Status TokenHistory::Start(const StepInput::Start& start) {
  const SequenceSampling& sampling = start.sampling;
  if (sampling.logprobs.value_or(0) > kMaxLogprobs) {
    return absl::InvalidArgumentError(
        absl::StrFormat("slot %d: %d log-probabilities are more than %d", start.slot,
                        *sampling.logprobs, kMaxLogprobs));
  }
  const bool counts = HasPenalties(sampling);
  if (counts && (start.seen_tokens.size() != start.context_tokens ||
                 start.context_tokens > limits_.max_context_tokens)) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "slot %d: %d seen tokens for a context of %d in one of at most %d", start.slot,
        start.seen_tokens.size(), start.context_tokens, limits_.max_context_tokens));
  }
  Slot& slot = slots_[start.slot];
  for (uint32_t i = 0; i < slot.num_marked; ++i) slot.marks[slot.marked[i]] = 0;
  slot.num_marked = 0;
  slot.sampling = sampling;
  slot.prompt_tokens = start.prompt_tokens;
  slot.counts = counts;
  slot.biases.clear();
  for (const auto& [token, bias] : sampling.logit_bias) {
    if (Holds(token)) slot.biases.emplace_back(ColumnOf(token), bias);
  }
  slot.late.clear();
  for (const TokenId token : sampling.late_tokens) {
    if (Holds(token)) slot.late.push_back(ColumnOf(token));
  }
  if (!counts) return absl::OkStatus();
  for (size_t i = 0; i < start.seen_tokens.size(); ++i) Add(slot, start.seen_tokens[i], i);
  return absl::OkStatus();
}

void TokenHistory::Add(Slot& slot, TokenId token, uint64_t position) {
  if (!Holds(token)) return;
  kernels::TokenMark& mark = slot.marks[ColumnOf(token)];
  if (mark == 0) {
    slot.marked[slot.num_marked++] = ColumnOf(token);
    mark = 1;
  }
  if (position >= slot.prompt_tokens) mark += 2;
}

std::optional<kernels::RowAdjustment> TokenHistory::AdjustmentFor(uint32_t index,
                                                                  uint64_t position) const {
  const Slot& slot = slots_[index];
  const SequenceSampling& sampling = slot.sampling;
  const bool early = position < uint64_t{slot.prompt_tokens} + sampling.min_new_tokens;
  kernels::RowAdjustment adjustment{.biases = slot.biases};
  if (early) adjustment.blocked = slot.late;
  if (slot.counts) {
    adjustment.repetition_penalty = sampling.repetition_penalty;
    adjustment.presence_penalty = sampling.presence_penalty;
    adjustment.frequency_penalty = sampling.frequency_penalty;
    adjustment.marks = {slot.marks, limits_.vocab.size()};
    adjustment.marked = {slot.marked, slot.num_marked};
  }
  const bool any = !adjustment.biases.empty() || !adjustment.blocked.empty() || slot.counts;
  return any ? std::optional(adjustment) : std::nullopt;
}

}  // namespace essor::worker
