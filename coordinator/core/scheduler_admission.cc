// Which waiting sequence starts next, where, and what it finds in the cache.
#include <algorithm>
#include <utility>

#include "common/check.h"
#include "coordinator/core/placement.h"
#include "coordinator/core/scheduler.h"
#include "coordinator/core/scheduler_state.h"
#include "coordinator/core/seed.h"

namespace essor::coordinator {

// Whether an earlier step than the next computes all of the prompt.
bool Scheduler::HasPrompt(const Sequence& sequence) const {
  return sequence.running() && !sequence.prefilling() && sequence.prefilled_by < next_step_;
}

// The other continuations of a prompt wait until the first has computed it: they will find it.
bool Scheduler::WaitsForPrompt(const Sequence& sequence) const {
  const Request& request = *sequence.request;
  if (request.generate() == nullptr) return false;
  // Nothing is told before the prompt's scores, which only the first has.
  if (request.ScoresPrompt(0)) return sequence.index > 0;
  bool is_first = true;
  for (const auto& other : request.sequences) {
    if (other->num_generated() > 0 || HasPrompt(*other)) return false;
    is_first = is_first && other->index >= sequence.index;
  }
  return !is_first;
}

Scheduler::Next Scheduler::NextToStart() const {
  const auto found = std::find_if(parked_.begin(), parked_.end(), [this](const Sequence* sequence) {
    return !WaitsForPrompt(*sequence);
  });
  Sequence* const parked = found == parked_.end() ? nullptr : *found;
  if (queue_.empty()) return {.parked = parked};
  if (parked != nullptr && parked->request->priority() >= queue_.FrontPriority()) {
    return {.parked = parked};
  }
  return {.front = requests_.at(queue_.Front().value()).get()};
}

KvCache::Begin Scheduler::BeginOf(const Request& request, uint32_t index,
                                  std::span<const TokenId> tokens, StepId step) const {
  const uint64_t reserve = tokens.size() + uint64_t{options_.reserve_new_tokens};
  // Where every row's logits are asked for, every row is computed.
  const bool needs_all_rows = request.score() != nullptr || request.ScoresPrompt(index);
  return {.tokens = tokens,
          .salt = request.salt,
          .reserve_tokens =
              static_cast<uint32_t>(std::min<uint64_t>(reserve, request.MaxKvTokens(index))),
          .max_shared_tokens = needs_all_rows ? 0 : UINT32_MAX,
          .step = step};
}

bool Scheduler::HasRoomFor(const Request& request, uint32_t index,
                           std::span<const TokenId> tokens) const {
  if (request.num_running == 0 && num_running_ >= options_.max_running_requests) return false;
  const KvCache::Begin begin = BeginOf(request, index, tokens, next_step_);
  return std::any_of(groups_.begin(), groups_.end(), [&](const Group& group) {
    return group.free_slots.size() + group.to_release.size() > 0 && group.kv.CanStart(begin, {});
  });
}

// Puts sequences of lower priority back until the next one can start.
void Scheduler::MakeRoom() {
  const Next next = NextToStart();
  const Request* const request = next.parked != nullptr ? next.parked->request : next.front;
  if (request == nullptr) return;
  const uint32_t index = next.parked != nullptr ? next.parked->index : 0;
  const std::span<const TokenId> tokens =
      next.parked != nullptr
          ? std::span<const TokenId>(next.parked->tokens)
          : std::span<const TokenId>(request->Input(0).data(), request->InputLength(0));
  // In the group whose last is the least urgent, of those where it would be enough.
  Group* chosen = nullptr;
  for (Group& group : groups_) {
    if (!CouldMakeRoom(group, *request, index, tokens)) continue;
    const bool is_better =
        chosen == nullptr || ByUrgency()(chosen->running.back(), group.running.back());
    if (is_better) chosen = &group;
  }
  if (chosen == nullptr) return;
  while (!chosen->running.empty() &&
         chosen->running.back()->request->priority() < request->priority() &&
         !HasRoomFor(*request, index, tokens)) {
    Preempt(chosen->running.back());
  }
}

// Whether the group has sequences of lower priority, and enough of them.
bool Scheduler::CouldMakeRoom(const Group& group, const Request& request, uint32_t index,
                              std::span<const TokenId> tokens) const {
  KvCache::Spare spare;
  uint32_t num_lower = 0;
  for (auto one = group.running.rbegin(); one != group.running.rend(); ++one) {
    if ((*one)->request->priority() >= request.priority()) break;
    const KvCache::Spare its = KvCache::SpareOf((*one)->kv);
    spare.blocks += its.blocks;
    spare.windows += its.windows;
    ++num_lower;
  }
  return num_lower > 0 && group.kv.CanStart(BeginOf(request, index, tokens, next_step_), spare);
}

void Scheduler::Admit(Planning* planning) {
  while (true) {
    const bool has_budget =
        std::any_of(planning->budgets.begin(), planning->budgets.end(),
                    [](const Planning::GroupBudget& budget) { return budget.prefill > 0; });
    if (!has_budget) return;
    const Next next = NextToStart();
    if (next.parked == nullptr && next.front == nullptr) return;
    const bool started =
        next.parked != nullptr ? TryStart(next.parked, planning) : AdmitFront(next.front, planning);
    if (!started) return;
  }
}

Scheduler::Sequence* Scheduler::AddSequence(Request* request, uint32_t index) const {
  auto sequence = std::make_unique<Sequence>();
  sequence->request = request;
  sequence->index = index;
  sequence->input_length = request->InputLength(index);
  const std::vector<TokenId>& input = request->Input(index);
  sequence->tokens.assign(input.begin(), input.begin() + sequence->input_length);
  if (const GenerateTask* task = request->generate()) {
    sequence->text = std::make_unique<OutputText>(model_.tokenizer, task->skip_special, task->stop);
  }
  request->sequences.push_back(std::move(sequence));
  return request->sequences.back().get();
}

bool Scheduler::AdmitFront(Request* request, Planning* planning) {
  const std::span<const TokenId> tokens(request->Input(0).data(), request->InputLength(0));
  if (!HasRoomFor(*request, 0, tokens)) return false;
  Sequence* const first = AddSequence(request, 0);
  if (!TryStart(first, planning)) {
    request->sequences.clear();
    return false;
  }
  queue_.Erase(request->place);
  request->waiting = false;
  for (uint32_t index = 1; index < request->num_sequences; ++index) {
    parked_.insert(AddSequence(request, index));
  }
  return true;
}

std::optional<uint32_t> Scheduler::GroupFor(const KvCache::Begin& begin,
                                            const Planning& planning) const {
  std::vector<GroupLoad> loads;
  loads.reserve(groups_.size());
  for (size_t i = 0; i < groups_.size(); ++i) {
    const Group& group = groups_[i];
    const bool open = !group.free_slots.empty() && planning.budgets[i].prefill > 0;
    GroupLoad load{.has_slot = open};
    if (open && groups_.size() > 1) {  // with one group there is nothing to compare
      load.has_slot = group.kv.CanStart(begin, {});
      load.num_running = static_cast<uint32_t>(group.running.size());
      load.waiting_tokens = group.num_to_prefill;
      load.cached_tokens = group.kv.CachedTokens(begin);
    }
    loads.push_back(load);
  }
  return ChooseGroup(loads, static_cast<uint32_t>(begin.tokens.size()));
}

std::optional<KvCache::Found> Scheduler::FindMemory(Sequence* sequence, const KvCache::Begin& begin,
                                                    Group* group) {
  for (const auto& other : sequence->request->sequences) {
    const bool can_fork = sequence->request->generate() != nullptr &&
                          sequence->num_generated() == 0 && HasPrompt(*other) &&
                          &GroupOf(other->slot) == group;
    if (!can_fork) continue;
    auto found = group->kv.Fork(begin, other->kv, &sequence->kv);
    if (found.has_value()) return found;
  }
  return group->kv.Start(begin, &sequence->kv);
}

bool Scheduler::TryStart(Sequence* sequence, Planning* planning) {
  Request* const request = sequence->request;
  if (request->num_running == 0 && num_running_ >= options_.max_running_requests) return false;
  const ScoreTask* const score = request->score();
  if (score != nullptr && score->return_logits && planning->logits_rows == 0) return false;
  const KvCache::Begin begin =
      BeginOf(*request, sequence->index, sequence->tokens, planning->step.step_id);
  const std::optional<uint32_t> chosen = GroupFor(begin, *planning);
  if (!chosen.has_value()) return false;
  Group& group = groups_[*chosen];
  const std::optional<KvCache::Found> found = FindMemory(sequence, begin, &group);
  if (!found.has_value()) return false;

  parked_.erase(sequence);
  sequence->slot = group.free_slots.back();
  group.free_slots.pop_back();
  group.slots[sequence->slot - group.first_slot] = sequence;
  group.running.insert(
      std::upper_bound(group.running.begin(), group.running.end(), sequence, ByUrgency()),
      sequence);
  sequence->start = next_start_++;
  sequence->prefill_target = static_cast<uint32_t>(sequence->tokens.size());
  sequence->branch_tokens = found->branch_tokens;
  group.num_to_prefill += sequence->prefill_target - found->context_tokens;
  if (request->num_running++ == 0) ++num_running_;
  if (request->first_scheduled == absl::InfiniteFuture()) {
    request->first_scheduled = planning->now;
    request->cached_tokens = found->context_tokens;
    cached_tokens_ += found->context_tokens;
  }
  if (request->ScoresPrompt(sequence->index)) request->prompt_logprobs.clear();
  // Prompts are charged when they begin, generated tokens one by one.
  queue_.Charge(request->tenant, sequence->prefill_target - found->context_tokens);
  planning->step.starts.push_back(StartOf(*sequence, *found));
  for (const KvCache::Found::Copy& copy : found->copies) {
    planning->step.copies.push_back(
        {.group = *chosen, .from = copy.from, .to = copy.to, .window = copy.window});
  }
  AddPrefill(sequence, planning);
  return true;
}

SlotStart Scheduler::StartOf(const Sequence& sequence, const KvCache::Found& found) const {
  SlotStart start{.slot = sequence.slot,
                  .context_tokens = found.context_tokens,
                  .blocks = sequence.kv.blocks,
                  .first_window_block = sequence.kv.first_window_block,
                  .window_blocks = sequence.kv.window_blocks,
                  .restore_snapshot = found.snapshot,
                  .prompt_tokens = sequence.input_length};
  const GenerateTask* const task = sequence.request->generate();
  if (task == nullptr) return start;
  start.sampling = task->sampling;
  start.sampling.seed = ContinuationSeed(task->sampling.seed, sequence.index);
  // To choose the best, their log-probabilities must be known.
  if (sequence.request->HoldsBack() && !start.sampling.logprobs.has_value()) {
    start.sampling.logprobs = 0;
  }
  if (start.sampling.NeedsTokens()) {
    start.seen_tokens.assign(sequence.tokens.begin(),
                             sequence.tokens.begin() + found.context_tokens);
  }
  return start;
}

}  // namespace essor::coordinator
