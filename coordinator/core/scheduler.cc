#include "coordinator/core/scheduler.h"

#include <algorithm>
#include <string>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/error_details.h"
#include "coordinator/core/scheduler_state.h"

namespace essor::coordinator {
namespace {

// Waiting requests whose deadline comes near are looked at this often.
constexpr absl::Duration kDeadlineChecks = absl::Milliseconds(10);

}  // namespace

bool Scheduler::ByUrgency::operator()(const Sequence* a, const Sequence* b) const {
  const auto key = [](const Sequence* sequence) {
    const Request& request = *sequence->request;
    return std::tuple(-request.priority(), request.arrival, sequence->index);
  };
  return key(a) < key(b);
}

Scheduler::Scheduler(Options options, OutputModel model)
    : options_(std::move(options)), model_(std::move(model)), queue_(options_.tenant_weights) {
  ESSOR_CHECK(options_.num_slots >= 1 && options_.max_running_requests >= 1);
  ESSOR_CHECK(options_.max_step_tokens >= options_.num_slots);
  ESSOR_CHECK(options_.block_tokens >= 1 && options_.max_logits_rows >= 1);
  ESSOR_CHECK(options_.num_groups >= 1 && options_.num_stages >= 1);
  Reset({});
}

Scheduler::~Scheduler() = default;

void Scheduler::Reset(const model::KvCapacity& capacity) {
  ESSOR_CHECK(requests_.empty());
  next_step_ = StepId(1);
  in_flight_.clear();
  last_done_ = absl::InfinitePast();
  groups_.clear();
  for (uint32_t i = 0; i < options_.num_groups; ++i) {
    Group group{.kv = KvCache({.kinds = options_.kinds,
                               .block_tokens = options_.block_tokens,
                               .prefix_cache = options_.prefix_cache},
                              capacity),
                .first_slot = i * options_.num_slots,
                .slots = std::vector<Sequence*>(options_.num_slots),
                .free_slots = {},
                .to_release = {}};
    for (uint32_t slot = options_.num_slots; slot > 0; --slot) {
      group.free_slots.push_back(group.first_slot + slot - 1);
    }
    groups_.push_back(std::move(group));
  }
  entry_of_slot_.assign(size_t{options_.num_groups} * options_.num_slots, 0);
}

uint32_t Scheduler::num_in_flight() const { return static_cast<uint32_t>(in_flight_.size()); }

absl::Duration Scheduler::ExpectedStepTime() const {
  if (in_flight_.empty()) return absl::ZeroDuration();
  const InFlight& step = in_flight_.front();
  return step_time_.DecodeTime(step.decode_rows) + step_time_.PrefillTime(step.prefill_rows);
}

uint32_t Scheduler::num_running_sequences() const {
  size_t count = 0;
  for (const Group& group : groups_) count += group.running.size();
  return static_cast<uint32_t>(count);
}

const KvCache& Scheduler::kv(uint32_t group) const { return groups_[group].kv; }

double Scheduler::Served(const std::string& tenant) {
  const uint32_t id = queue_.Tenant(tenant);
  const double served = queue_.Served(id);
  queue_.Forget(id);
  return served;
}

Scheduler::Group& Scheduler::GroupOf(uint32_t slot) { return groups_[GroupIndex(slot)]; }
const Scheduler::Group& Scheduler::GroupOf(uint32_t slot) const {
  return groups_[GroupIndex(slot)];
}

absl::Status Scheduler::Submit(RequestId id, GenerateTask task, absl::Time now) {
  ESSOR_CHECK(!task.prompt->empty() && task.max_new_tokens >= 1 && task.num_continuations >= 1);
  ESSOR_CHECK(task.best_of == 0 || task.best_of >= task.num_continuations);
  auto request = std::make_unique<Request>();
  request->id = id;
  request->num_sequences = std::max(task.num_continuations, task.best_of);
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
  if (queue_.size() >= uint64_t{options_.max_queued_requests} + idle) {
    return WithReason(WithRetryDelay(absl::ResourceExhaustedError(absl::StrCat(
                                         "the queue is full: ", num_running_, " requests running, ",
                                         num_waiting_requests(), " waiting")),
                                     RetryDelay()),
                      "QUEUE_FULL");
  }
  const KvCache& kv = groups_.front().kv;
  for (uint32_t index = 0; index < request->num_sequences; ++index) {
    const uint32_t needed = request->MaxKvTokens(index);
    if (kv.CanEverFit(needed)) continue;
    return absl::FailedPreconditionError(
        absl::StrCat("the request needs ", kv.BlocksFor(needed), " KV blocks of ",
                     options_.block_tokens, " tokens and the cluster has ", kv.num_blocks()));
  }
  if (requests_.empty()) last_completion_ = absl::InfinitePast();  // an idle time is no drain rate
  const Service& service = request->service();
  request->accepted = now;
  request->arrival = next_arrival_++;
  request->tenant = queue_.Tenant(service.tenant);
  request->salt = service.cache_salt;
  if (options_.share_cache == ShareCache::kTenant) {
    request->salt = absl::StrCat(service.tenant, "\n", service.cache_salt);
  }
  Request* const added = request.get();
  const bool is_new = requests_.emplace(added->id.value(), std::move(request)).second;
  ESSOR_CHECK(is_new);
  added->place = queue_.Push(added->tenant, added->priority(), added->id);
  if (added->deadline != absl::InfiniteFuture()) WatchDeadline(added, now);
  return absl::OkStatus();
}

absl::Duration Scheduler::RetryDelay() const {
  const absl::Duration wait = completion_interval_ * static_cast<int64_t>(queue_.size() + 1);
  return std::clamp(wait, absl::Seconds(1), absl::Seconds(30));
}

absl::Duration Scheduler::LeastTimeToFirstToken(const Request& request) const {
  const std::vector<TokenId>& input = request.Input(0);
  const std::span<const TokenId> tokens(input.data(), request.InputLength(0));
  uint32_t cached = 0;
  for (const Group& group : groups_) {
    cached = std::max(cached, group.kv.CachedTokens(BeginOf(request, 0, tokens, next_step_)));
  }
  return step_time_.PrefillTime(static_cast<uint32_t>(tokens.size()) - cached);
}

void Scheduler::WatchDeadline(Request* request, absl::Time now) {
  request->deadline_check = request->deadline;
  if (request->waiting) {
    request->deadline_check = std::min(
        request->deadline,
        std::max(now + kDeadlineChecks, request->deadline - LeastTimeToFirstToken(*request)));
  }
  deadlines_.insert({request->deadline_check, request->id});
}

void Scheduler::ExpireDeadlines(absl::Time now, std::vector<RequestEvent>* events) {
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    Request* const request = requests_.at(deadlines_.begin()->second.value()).get();
    if (request->deadline <= now) {
      EndRequest(request, absl::DeadlineExceededError("the request's deadline passed"), events);
      continue;
    }
    const absl::Duration left = request->deadline - now;
    const absl::Duration least =
        request->waiting ? LeastTimeToFirstToken(*request) : absl::ZeroDuration();
    if (least > left) {
      EndRequest(request,
                 absl::DeadlineExceededError(absl::StrCat(
                     "the request's deadline cannot be met: it has waited until ",
                     absl::FormatDuration(left), " are left, and its prompt alone takes ",
                     absl::FormatDuration(least))),
                 events);
      continue;
    }
    deadlines_.erase(deadlines_.begin());
    WatchDeadline(request, now);
  }
}

void Scheduler::Cancel(RequestId id, const absl::Status& reason,
                       std::vector<RequestEvent>* events) {
  const auto found = requests_.find(id.value());
  if (found == requests_.end()) return;
  EndRequest(found->second.get(), reason, events);
}

void Scheduler::FailAll(const absl::Status& reason, std::vector<RequestEvent>* events) {
  std::vector<uint64_t> ids;
  for (const auto& [id, request] : requests_) ids.push_back(id);
  std::sort(ids.begin(), ids.end());  // the same events for the same history
  for (const uint64_t id : ids) Cancel(RequestId(id), reason, events);
}

// Takes a running sequence out of its slot and memory; what steps in flight give for it is dropped.
void Scheduler::Vacate(Sequence* sequence) {
  Group& group = GroupOf(sequence->slot);
  if (sequence->prefilling()) {
    group.num_to_prefill -= sequence->prefill_target - sequence->kv.num_tokens;
  }
  group.kv.End(&sequence->kv);
  group.slots[sequence->slot - group.first_slot] = nullptr;
  group.to_release.push_back(sequence->slot);
  const auto place =
      std::lower_bound(group.running.begin(), group.running.end(), sequence, ByUrgency());
  ESSOR_CHECK(place != group.running.end() && *place == sequence);
  group.running.erase(place);
  sequence->start = 0;
  sequence->num_pending = 0;
  sequence->sampled_by = StepId();
  if (--sequence->request->num_running == 0) --num_running_;
}

void Scheduler::Preempt(Sequence* sequence) {
  Vacate(sequence);
  parked_.insert(sequence);
  ++num_preemptions_;
}

void Scheduler::EndSequence(Sequence* sequence) {
  if (sequence->running()) {
    Vacate(sequence);
  } else {
    parked_.erase(sequence);
  }
  std::erase_if(sequence->request->sequences,
                [sequence](const auto& owned) { return owned.get() == sequence; });
}

void Scheduler::EndRequest(Request* request, const absl::Status& status,
                           std::vector<RequestEvent>* events) {
  while (!request->sequences.empty()) EndSequence(request->sequences.back().get());
  if (request->waiting) queue_.Erase(request->place);
  queue_.Forget(request->tenant);
  if (request->deadline != absl::InfiniteFuture()) {
    deadlines_.erase({request->deadline_check, request->id});
  }
  events->push_back({.request = request->id, .done = status});
  requests_.erase(request->id.value());
}

}  // namespace essor::coordinator
