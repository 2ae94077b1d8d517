#include "worker/engine/group_step.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/status_macros.h"

namespace essor::worker {
namespace {

// What an output says next, while outputs are merged.
struct Cursor {
  StepOutput* output;
  size_t sampled = 0;
  size_t logprobs = 0;
  size_t scored = 0;
};

void TakeSampled(uint32_t slot, bool with_logprobs, std::vector<Cursor>& cursors,
                 StepOutput* merged) {
  for (Cursor& cursor : cursors) {
    StepOutput& from = *cursor.output;
    if (cursor.sampled == from.sampled.size() || from.sampled[cursor.sampled].slot != slot) {
      continue;
    }
    merged->sampled.push_back(from.sampled[cursor.sampled++]);
    if (with_logprobs && cursor.logprobs < from.logprobs.size()) {
      merged->logprobs.push_back(std::move(from.logprobs[cursor.logprobs++]));
    }
    return;
  }
}

void TakeScored(uint32_t slot, std::vector<Cursor>& cursors, StepOutput* merged) {
  for (Cursor& cursor : cursors) {
    StepOutput& from = *cursor.output;
    if (cursor.scored == from.scored.size() || from.scored[cursor.scored].slot != slot) continue;
    merged->scored.push_back(std::move(from.scored[cursor.scored++]));
    return;
  }
}

absl::Status CheckNames(const StepInput& step, const StepGroups& groups) {
  const auto check_slot = [&](uint32_t slot) -> absl::Status {
    if (slot / groups.slots_per_group < groups.num_groups) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrFormat("step %d: slot %d is of none of the %d groups of %d slots",
                        step.step_id.value(), slot, groups.num_groups, groups.slots_per_group));
  };
  for (const uint32_t slot : step.release_slots) ESSOR_RETURN_IF_ERROR(check_slot(slot));
  for (const StepInput::Start& start : step.starts) ESSOR_RETURN_IF_ERROR(check_slot(start.slot));
  for (const StepInput::Sequence& sequence : step.sequences) {
    ESSOR_RETURN_IF_ERROR(check_slot(sequence.slot));
  }
  for (const StepInput::Copy& copy : step.copies) {
    if (copy.group < groups.num_groups) continue;
    return absl::InvalidArgumentError(absl::StrFormat("step %d copies a block of group %d of %d",
                                                      step.step_id.value(), copy.group,
                                                      groups.num_groups));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<uint32_t>> RowsOfGroups(const StepInput& step,
                                                   const StepGroups& groups) {
  ESSOR_RETURN_IF_ERROR(CheckNames(step, groups));
  std::vector<uint64_t> rows(groups.num_groups);
  for (const StepInput::Sequence& sequence : step.sequences) {
    rows[sequence.slot / groups.slots_per_group] += std::max<size_t>(sequence.tokens.size(), 1);
  }
  for (uint32_t group = 0; group < groups.num_groups; ++group) {
    if (rows[group] <= groups.max_step_tokens) continue;
    return absl::InvalidArgumentError(
        absl::StrFormat("step %d has %d tokens for group %d, the budget is %d",
                        step.step_id.value(), rows[group], group, groups.max_step_tokens));
  }
  return std::vector<uint32_t>(rows.begin(), rows.end());
}

StepInput StepOfGroup(const StepInput& step, const StepGroups& groups, uint32_t group) {
  const uint32_t first_slot = group * groups.slots_per_group;
  const auto is_here = [&](uint32_t slot) { return slot / groups.slots_per_group == group; };
  StepInput own;
  own.step_id = step.step_id;
  own.deadline = step.deadline;
  for (const uint32_t slot : step.release_slots) {
    if (is_here(slot)) own.release_slots.push_back(slot - first_slot);
  }
  for (const StepInput::Start& start : step.starts) {
    if (!is_here(start.slot)) continue;
    own.starts.push_back(start);
    own.starts.back().slot -= first_slot;
  }
  std::copy_if(step.copies.begin(), step.copies.end(), std::back_inserter(own.copies),
               [&](const StepInput::Copy& copy) { return copy.group == group; });
  for (const StepInput::Sequence& sequence : step.sequences) {
    if (!is_here(sequence.slot)) continue;
    own.sequences.push_back(sequence);
    own.sequences.back().slot -= first_slot;
  }
  return own;
}

void RenumberSlots(uint32_t first_slot, StepOutput* output) {
  for (StepOutput::Sampled& sampled : output->sampled) sampled.slot += first_slot;
  for (StepOutput::Scored& scored : output->scored) scored.slot += first_slot;
}

std::vector<bool> LogprobSlots::Of(const StepInput& step) {
  for (const StepInput::Start& start : step.starts) {
    if (start.slot >= asks_.size()) continue;  // refused by the engine
    asks_[start.slot] = start.sampling.logprobs.has_value();
  }
  std::vector<bool> asks;
  asks.reserve(step.sequences.size());
  for (const StepInput::Sequence& sequence : step.sequences) {
    asks.push_back(sequence.slot < asks_.size() && asks_[sequence.slot]);
  }
  return asks;
}

StepOutput MergeOutputs(const StepInput& step, const std::vector<bool>& with_logprobs,
                        std::vector<StepOutput> outputs) {
  StepOutput merged;
  merged.step_id = step.step_id;
  std::vector<Cursor> cursors;
  for (StepOutput& output : outputs) {
    merged.compute_time = std::max(merged.compute_time, output.compute_time);
    cursors.push_back({.output = &output});
  }
  for (size_t i = 0; i < step.sequences.size(); ++i) {
    TakeSampled(step.sequences[i].slot, with_logprobs[i], cursors, &merged);
    TakeScored(step.sequences[i].slot, cursors, &merged);
  }
  return merged;
}

}  // namespace essor::worker
