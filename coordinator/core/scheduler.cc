#include "coordinator/core/scheduler.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/error_details.h"
#include "coordinator/core/scheduler_state.h"
#include "coordinator/core/seed.h"

namespace essor::coordinator {
namespace {

uint32_t BlocksFor(uint32_t num_tokens, uint32_t block_tokens) {
  return (num_tokens + block_tokens - 1) / block_tokens;
}

}  // namespace

Scheduler::Scheduler(Options options, OutputModel model)
    : options_(options), model_(std::move(model)), blocks_(0) {
  ESSOR_CHECK(options_.num_slots >= 1 && options_.max_running_requests >= 1);
  ESSOR_CHECK(options_.max_step_tokens >= options_.num_slots);
  ESSOR_CHECK(options_.block_tokens >= 1 && options_.max_logits_rows >= 1);
  Reset(0);
}

Scheduler::~Scheduler() = default;

void Scheduler::Reset(uint32_t num_blocks) {
  ESSOR_CHECK(requests_.empty());
  blocks_ = BlockPool(num_blocks);
  next_step_ = StepId(1);
  slots_.clear();
  slots_.resize(options_.num_slots);
  free_slots_.clear();
  for (uint32_t slot = options_.num_slots; slot > 0; --slot) free_slots_.push_back(slot - 1);
  running_.clear();
  to_release_.clear();
  in_flight_.clear();
  step_planned_ = false;
}

absl::Status Scheduler::Submit(RequestId id, GenerateTask task, absl::Time now) {
  ESSOR_CHECK(!task.prompt->empty() && task.max_new_tokens >= 1 && task.num_continuations >= 1);
  auto request = std::make_unique<Request>();
  request->id = id;
  request->num_sequences = task.num_continuations;
  request->deadline = task.deadline;
  request->task = std::move(task);
  return Enqueue(std::move(request), now);
}

absl::Status Scheduler::Submit(RequestId id, ScoreTask task, absl::Time now) {
  ESSOR_CHECK(!task.sequences.empty());
  auto request = std::make_unique<Request>();
  request->id = id;
  request->num_sequences = static_cast<uint32_t>(task.sequences.size());
  request->deadline = task.deadline;
  request->task = std::move(task);
  return Enqueue(std::move(request), now);
}

absl::Status Scheduler::Enqueue(std::unique_ptr<Request> request, absl::Time now) {
  const uint32_t idle =
      options_.max_running_requests - std::min(num_running_, options_.max_running_requests);
  if (waiting_.size() >= static_cast<size_t>(options_.max_queued_requests) + idle) {
    return WithReason(WithRetryDelay(absl::ResourceExhaustedError(absl::StrCat(
                                         "the queue is full: ", num_running_, " requests running, ",
                                         waiting_.size(), " waiting")),
                                     RetryDelay()),
                      "QUEUE_FULL");
  }
  for (uint32_t index = 0; index < request->num_sequences; ++index) {
    const uint32_t needed = BlocksFor(request->MaxKvTokens(index), options_.block_tokens);
    if (needed <= blocks_.num_blocks()) continue;
    return absl::FailedPreconditionError(
        absl::StrCat("the request needs ", needed, " KV blocks of ", options_.block_tokens,
                     " tokens and the cluster has ", blocks_.num_blocks()));
  }
  request->accepted = now;
  Request* const added = request.get();
  added->waiting_position = waiting_.insert(waiting_.end(), added);
  if (added->deadline != absl::InfiniteFuture()) deadlines_.insert({added->deadline, added->id});
  const bool is_new = requests_.emplace(added->id.value(), std::move(request)).second;
  ESSOR_CHECK(is_new);
  return absl::OkStatus();
}

absl::Duration Scheduler::RetryDelay() const {
  const absl::Duration wait = completion_interval_ * static_cast<int64_t>(waiting_.size() + 1);
  return std::clamp(wait, absl::Seconds(1), absl::Seconds(30));
}

void Scheduler::Cancel(RequestId id, const absl::Status& reason,
                       std::vector<RequestEvent>* events) {
  const auto found = requests_.find(id.value());
  if (found == requests_.end()) return;
  EndRequest(found->second.get(), reason, events);
}

void Scheduler::ExpireDeadlines(absl::Time now, std::vector<RequestEvent>* events) {
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    Cancel(deadlines_.begin()->second, absl::DeadlineExceededError("the request's deadline passed"),
           events);
  }
}

void Scheduler::FailAll(const absl::Status& reason, std::vector<RequestEvent>* events) {
  std::vector<uint64_t> ids;
  for (const auto& [id, request] : requests_) ids.push_back(id);
  std::sort(ids.begin(), ids.end());  // the same events for the same history
  for (const uint64_t id : ids) Cancel(RequestId(id), reason, events);
}

void Scheduler::EndRequest(Request* request, const absl::Status& status,
                           std::vector<RequestEvent>* events) {
  for (const uint32_t slot : request->slots) FreeSlot(slot);
  if (!request->slots.empty()) DropFinishedFromRunning();
  if (request->num_admitted < request->num_sequences) waiting_.erase(request->waiting_position);
  if (request->num_admitted > 0) --num_running_;
  deadlines_.erase({request->deadline, request->id});
  events->push_back({.request = request->id, .tokens = {}, .scores = {}, .done = status});
  requests_.erase(request->id.value());
}

void Scheduler::FreeSlot(uint32_t slot) {
  Sequence& sequence = *slots_[slot];
  blocks_.Return(sequence.blocks, sequence.reserved_blocks);
  slots_[slot] = nullptr;
  to_release_.push_back(slot);
}

void Scheduler::DropFinishedFromRunning() {
  std::erase_if(running_, [this](uint32_t slot) { return slots_[slot] == nullptr; });
}

std::optional<Step> Scheduler::PlanStep(absl::Time now) {
  ESSOR_CHECK(!step_planned_);
  Step step;
  Budget budget{.tokens = options_.max_step_tokens, .logits_rows = options_.max_logits_rows};
  // Released slots can be taken again by the same step: workers apply releases first.
  free_slots_.insert(free_slots_.end(), to_release_.rbegin(), to_release_.rend());
  step.release_slots = std::exchange(to_release_, {});

  for (const uint32_t slot : running_) {
    if (!slots_[slot]->prefilling()) AddDecode(slots_[slot].get(), &step, &budget);
  }
  for (const uint32_t slot : running_) {
    if (slots_[slot]->prefilling()) AddPrefill(slots_[slot].get(), &step, &budget);
  }
  while (budget.tokens > 0 && !waiting_.empty()) {
    const ScoreTask* const score = waiting_.front()->score();
    if (score != nullptr && score->return_logits && budget.logits_rows == 0) break;
    if (!TryAdmit(waiting_.front(), &step, now)) break;
    AddPrefill(slots_[running_.back()].get(), &step, &budget);
  }
  if (step.sequences.empty()) {  // keep the releases for a step that computes something
    to_release_ = std::move(step.release_slots);
    free_slots_.resize(free_slots_.size() - to_release_.size());
    return std::nullopt;
  }
  step.step_id = next_step_;
  next_step_ = StepId(next_step_.value() + 1);
  step.num_tokens = options_.max_step_tokens - budget.tokens;
  step_planned_ = true;
  return step;
}

bool Scheduler::TryAdmit(Request* request, Step* step, absl::Time now) {
  const bool first = request->num_admitted == 0;
  if (first && num_running_ >= options_.max_running_requests) return false;
  if (free_slots_.empty()) return false;
  const uint32_t index = request->num_admitted;
  const uint32_t blocks = BlocksFor(request->MaxKvTokens(index), options_.block_tokens);
  if (!blocks_.Reserve(blocks)) return false;

  auto sequence = std::make_unique<Sequence>();
  sequence->request = request;
  sequence->index = index;
  sequence->slot = free_slots_.back();
  sequence->reserved_blocks = blocks;
  free_slots_.pop_back();
  SlotStart start{.slot = sequence->slot, .sampling = {}};
  if (const GenerateTask* task = request->generate()) {
    sequence->text = std::make_unique<OutputText>(model_.tokenizer, task->skip_special, task->stop);
    start.sampling = task->sampling;
    start.sampling.seed = ContinuationSeed(task->sampling.seed, index);
  }
  step->starts.push_back(start);
  request->slots.push_back(sequence->slot);
  running_.push_back(sequence->slot);
  slots_[sequence->slot] = std::move(sequence);
  if (first) {
    ++num_running_;
    request->first_scheduled = now;
  }
  if (++request->num_admitted == request->num_sequences) {
    waiting_.erase(request->waiting_position);
  }
  return true;
}

void Scheduler::AddDecode(Sequence* sequence, Step* step, Budget* budget) {
  ESSOR_CHECK(budget->tokens > 0);  // num_slots <= max_step_tokens
  SequenceStep entry{.slot = sequence->slot};
  const uint32_t input_length = sequence->request->InputLength(sequence->index);
  GrowBlocks(sequence, input_length + sequence->num_generated, &entry);
  budget->tokens -= 1;
  in_flight_.push_back({.slot = sequence->slot, .samples = true});
  step->sequences.push_back(std::move(entry));
}

void Scheduler::AddPrefill(Sequence* sequence, Step* step, Budget* budget) {
  const Request& request = *sequence->request;
  const std::vector<TokenId>& input = request.Input(sequence->index);
  const ScoreTask* const score = request.score();
  const uint32_t length = request.InputLength(sequence->index);
  const uint32_t first = sequence->num_prefilled;
  uint32_t chunk = std::min(length - first, budget->tokens);
  const bool returns_logits = score != nullptr && score->return_logits;
  if (returns_logits) chunk = std::min(chunk, budget->logits_rows);
  if (chunk == 0) return;

  const bool ends_prompt = first + chunk == length;
  SequenceStep entry{.slot = sequence->slot};
  entry.tokens.assign(input.begin() + first, input.begin() + first + chunk);
  entry.hold = score != nullptr || !ends_prompt;
  if (score != nullptr) {
    entry.score = true;
    entry.return_logits = returns_logits;
    const size_t targets_end = std::min<size_t>(first + chunk + 1, input.size());
    entry.score_targets.assign(input.begin() + first + 1, input.begin() + targets_end);
  }
  GrowBlocks(sequence, first + chunk, &entry);
  sequence->num_prefilled += chunk;
  budget->tokens -= chunk;
  if (returns_logits) budget->logits_rows -= chunk;
  in_flight_.push_back({.slot = sequence->slot,
                        .samples = !entry.hold,
                        .scores = entry.score,
                        .first_position = first,
                        .num_rows = chunk,
                        .num_targets = static_cast<uint32_t>(entry.score_targets.size()),
                        .returns_logits = returns_logits});
  step->sequences.push_back(std::move(entry));
}

void Scheduler::GrowBlocks(Sequence* sequence, uint32_t num_tokens, SequenceStep* entry) {
  while (sequence->blocks.size() * options_.block_tokens < num_tokens) {
    ESSOR_CHECK(sequence->reserved_blocks > 0);
    --sequence->reserved_blocks;
    sequence->blocks.push_back(blocks_.Take());
    entry->new_blocks.push_back(sequence->blocks.back());
  }
}

}  // namespace essor::coordinator
