// What the next step computes.
#include <algorithm>
#include <utility>

#include "common/check.h"
#include "coordinator/core/scheduler.h"
#include "coordinator/core/scheduler_state.h"

namespace essor::coordinator {
namespace {

// A generated token costs about as much as this many of a prompt (arXiv 2401.00588, section 3.1).
constexpr double kDecodeWork = 2;

}  // namespace

std::optional<Step> Scheduler::PlanStep(absl::Time now) {
  ESSOR_CHECK(num_in_flight() < max_in_flight());
  queue_.Settle();
  MakeRoom();
  Planning planning{.step = {.step_id = next_step_},
                    .entries = {},
                    .now = now,
                    .budgets = std::vector<Planning::GroupBudget>(groups_.size()),
                    .logits_rows = options_.max_logits_rows};
  // Released slots can be taken again by the same step: workers apply releases first.
  std::vector<std::vector<uint32_t>> released(groups_.size());
  for (size_t i = 0; i < groups_.size(); ++i) {
    Group& group = groups_[i];
    planning.budgets[i].tokens = options_.max_step_tokens;
    released[i] = std::exchange(group.to_release, {});
    group.free_slots.insert(group.free_slots.end(), released[i].rbegin(), released[i].rend());
    planning.step.release_slots.insert(planning.step.release_slots.end(), released[i].begin(),
                                       released[i].end());
  }
  for (Group& group : groups_) {
    FindRoomForPrompts(&group);
    AddDecodes(&group, &planning);
  }
  SetPrefillBudgets(&planning);
  for (size_t i = 0; i < groups_.size(); ++i) {
    // The groups take turns at being first: they share the rows of logits.
    const Group& group = groups_[(next_step_.value() + i) % groups_.size()];
    for (Sequence* const sequence : group.running) {
      if (sequence->prefilling()) AddPrefill(sequence, &planning);
    }
  }
  Admit(&planning);
  if (planning.entries.empty()) {  // keep the releases for a step that computes something
    ESSOR_CHECK(planning.step.starts.empty());
    for (size_t i = 0; i < groups_.size(); ++i) {
      Group& group = groups_[i];
      group.free_slots.resize(group.free_slots.size() - released[i].size());
      group.to_release.insert(group.to_release.begin(), released[i].begin(), released[i].end());
    }
    return std::nullopt;
  }
  next_step_ = StepId(next_step_.value() + 1);
  InFlight in_flight{
      .id = planning.step.step_id, .entries = std::move(planning.entries), .planned = now};
  for (const Planning::GroupBudget& budget : planning.budgets) {
    planning.step.num_tokens += budget.decode_rows + budget.prefill_rows;
    in_flight.decode_rows = std::max(in_flight.decode_rows, budget.decode_rows);
    in_flight.prefill_rows = std::max(in_flight.prefill_rows, budget.prefill_rows);
  }
  in_flight_.push_back(std::move(in_flight));
  return std::move(planning.step);
}

bool Scheduler::CanDecode(const Sequence& sequence, StepId step) const {
  const bool has_token = sequence.num_pending == 0 ||
                         step.value() >= sequence.sampled_by.value() + options_.num_stages;
  return sequence.Decodes() && has_token;
}

// Blocks for prompts are promised, but window blocks that other sequences have come to share do not
// come back when a prompt leaves them behind. To be called while the step is empty: what is put
// back must not be in it.
void Scheduler::FindRoomForPrompts(Group* group) {
  if (options_.kinds.window_tokens == 0) return;
  for (size_t i = 0; i < group->running.size(); ++i) {
    if (group->running[i]->prefilling() && !FindRoom(group->running[i], group)) return;
  }
}

// With several stages, each of as many steps takes its share of the sequences, so that all stages
// are busy.
void Scheduler::AddDecodes(Group* group, Planning* planning) {
  size_t decoding = group->running.size();
  if (options_.num_stages > 1) {
    decoding = static_cast<size_t>(
        std::count_if(group->running.begin(), group->running.end(),
                      [](const Sequence* sequence) { return sequence->Decodes(); }));
  }
  size_t share = (decoding + options_.num_stages - 1) / options_.num_stages;
  for (size_t i = 0; i < group->running.size() && share > 0; ++i) {
    Sequence* const sequence = group->running[i];
    if (!CanDecode(*sequence, planning->step.step_id)) continue;
    if (!FindRoom(sequence, group)) {
      --i;  // it was put back, so the next one has its place
      continue;
    }
    AddDecode(sequence, planning);
    --share;
  }
}

// Room for one more token of `sequence`: by putting back the last in the order, itself perhaps
// (false).
bool Scheduler::FindRoom(Sequence* sequence, Group* group) {
  group->kv.ReleaseBehind(&sequence->kv);
  while (group->kv.RoomFor(sequence->kv, 1) == 0) {
    Sequence* const last = group->running.back();
    Preempt(last);
    if (last == sequence) return false;
  }
  return true;
}

void Scheduler::AddDecode(Sequence* sequence, Planning* planning) {
  Group& group = GroupOf(sequence->slot);
  Planning::GroupBudget& budget = planning->budgets[GroupIndex(sequence->slot)];
  ESSOR_CHECK(budget.tokens > 0);  // num_slots <= max_step_tokens
  --budget.tokens;
  ++budget.decode_rows;
  std::vector<BlockId> blocks;
  std::vector<BlockId> window_blocks;
  group.kv.Extend(&sequence->kv, 1, &blocks, &window_blocks);
  if (blocks.empty() && window_blocks.empty()) {
    planning->step.decode_slots.push_back(sequence->slot);
  } else {
    planning->step.sequences.push_back({.slot = sequence->slot,
                                        .new_blocks = std::move(blocks),
                                        .new_window_blocks = std::move(window_blocks)});
  }
  ++sequence->num_pending;
  sequence->sampled_by = planning->step.step_id;
  const GenerateTask& task = *sequence->request->generate();
  planning->entries.push_back(
      {.slot = sequence->slot,
       .start = sequence->start,
       .samples = true,
       .wants_logprob = task.sampling.logprobs.has_value() || sequence->request->HoldsBack()});
  queue_.Charge(sequence->request->tenant, kDecodeWork);
}

bool Scheduler::AnyDecodes() const {
  return std::any_of(groups_.begin(), groups_.end(), [](const Group& group) {
    return std::any_of(group.running.begin(), group.running.end(),
                       [](const Sequence* sequence) { return sequence->Decodes(); });
  });
}

void Scheduler::SetPrefillBudgets(Planning* planning) const {
  uint32_t decode_rows = 0;
  for (const Planning::GroupBudget& budget : planning->budgets) {
    decode_rows = std::max(decode_rows, budget.decode_rows);
  }
  // With several stages, sequences wait for steps that have none of them.
  if (decode_rows == 0 && options_.num_stages > 1 && AnyDecodes()) decode_rows = 1;
  const absl::Duration target =
      StepTarget(options_.target_step_time, step_time_.DecodeTime(decode_rows));
  const uint32_t rows =
      decode_rows == 0 ? UINT32_MAX
                       : step_time_.PrefillRowsWithin(target, decode_rows, options_.block_tokens);
  for (Planning::GroupBudget& budget : planning->budgets) {
    budget.prefill = std::min(budget.tokens, rows);
  }
}

// Tokens of the sequence's prompt for this step.
uint32_t Scheduler::ChunkOf(const Sequence& sequence, const Planning& planning) const {
  const Group& group = GroupOf(sequence.slot);
  const Planning::GroupBudget& budget = planning.budgets[GroupIndex(sequence.slot)];
  const uint32_t first = sequence.kv.num_tokens;
  uint32_t chunk = std::min(sequence.prefill_target - first, budget.prefill);
  const ScoreTask* const score = sequence.request->score();
  if (score != nullptr && score->return_logits) chunk = std::min(chunk, planning.logits_rows);
  if (options_.kinds.states && options_.prefix_cache) {
    // States can be kept only where a chunk ends: where others went another way, and at the last
    // block boundary before the prompt's last token.
    const uint32_t block = options_.block_tokens;
    for (const uint32_t end :
         {sequence.branch_tokens, (sequence.prefill_target - 1) / block * block}) {
      if (end > first) chunk = std::min(chunk, end - first);
    }
  }
  return group.kv.RoomFor(sequence.kv, chunk);
}

// What the next `chunk` tokens of a prompt are computed for, without their blocks.
SequenceStep Scheduler::ChunkStep(const Sequence& sequence, uint32_t chunk) {
  const Request& request = *sequence.request;
  const uint32_t first = sequence.kv.num_tokens;
  const uint32_t end = first + chunk;
  const ScoreTask* const score = request.score();
  SequenceStep step{.slot = sequence.slot};
  step.tokens.assign(sequence.tokens.begin() + first, sequence.tokens.begin() + end);
  step.hold = score != nullptr || end < sequence.prefill_target;
  step.score = score != nullptr || request.ScoresPrompt(sequence.index);
  step.return_logits = score != nullptr && score->return_logits;
  if (!step.score) return step;
  const std::vector<TokenId>& input = request.Input(sequence.index);
  const size_t targets_end = std::min<size_t>(end + 1, input.size());
  step.score_targets.assign(input.begin() + first + 1, input.begin() + targets_end);
  step.score_top = score != nullptr ? score->top_n : *request.generate()->prompt_logprobs;
  return step;
}

void Scheduler::AddPrefill(Sequence* sequence, Planning* planning) {
  Group& group = GroupOf(sequence->slot);
  group.kv.ReleaseBehind(&sequence->kv);
  const uint32_t chunk = ChunkOf(*sequence, *planning);
  if (chunk == 0) return;
  const Request& request = *sequence->request;
  const uint32_t first = sequence->kv.num_tokens;
  const uint32_t end = first + chunk;
  SequenceStep step = ChunkStep(*sequence, chunk);
  group.kv.Extend(&sequence->kv, chunk, &step.new_blocks, &step.new_window_blocks);
  group.kv.Publish(&sequence->kv, sequence->tokens);
  if (options_.kinds.states) {
    step.save_snapshot = group.kv.PlaceSnapshot(&sequence->kv, planning->step.step_id);
  }
  group.num_to_prefill -= chunk;
  Planning::GroupBudget& budget = planning->budgets[GroupIndex(sequence->slot)];
  budget.tokens -= chunk;
  budget.prefill -= chunk;
  budget.prefill_rows += chunk;
  if (step.return_logits) planning->logits_rows -= chunk;
  if (end == sequence->prefill_target) sequence->prefilled_by = planning->step.step_id;
  if (!step.hold) {
    ++sequence->num_pending;
    sequence->sampled_by = planning->step.step_id;
  }
  planning->entries.push_back(
      {.slot = sequence->slot,
       .start = sequence->start,
       .samples = !step.hold,
       .wants_logprob =
           !step.hold && (request.generate()->sampling.logprobs.has_value() || request.HoldsBack()),
       .scores = step.score,
       .returns_logits = step.return_logits,
       .last_of_input = end == sequence->input_length,
       .first_position = first,
       .num_rows = chunk,
       .num_targets = static_cast<uint32_t>(step.score_targets.size()),
       .score_top = step.score_top > 0});
  planning->step.sequences.push_back(std::move(step));
}

}  // namespace essor::coordinator
