#include "coordinator/service/driver.h"

#include <algorithm>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/error_details.h"
#include "common/log.h"

namespace essor::coordinator {
namespace {

// Events that may wait for the runner; each submission and worker message is one.
constexpr size_t kMaxQueuedEvents = 1 << 16;
constexpr absl::Duration kRetryDelay = absl::Seconds(1);
// A step is overdue when it takes this many times the estimate (and stuck_after at least).
constexpr int kOverdueFactor = 4;

int64_t ToNanos(absl::Time time) { return absl::ToUnixNanos(time); }

}  // namespace

Driver::Driver(Options options, const Clock* clock, CoordinatorMetrics* metrics)
    : options_(std::move(options)),
      clock_(*clock),
      metrics_(*metrics),
      membership_(options_.membership),
      scheduler_(options_.scheduler, options_.output_model) {
  PublishState();
  thread_ = std::thread([this] { ThreadMain(); });
}

Driver::~Driver() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

bool Driver::Post(Event event, bool bounded) {
  absl::MutexLock lock(&mutex_);
  if (bounded && queue_.size() >= kMaxQueuedEvents) return false;
  queue_.push_back(std::move(event));
  return true;
}

void Driver::WakeThread() {
  absl::MutexLock lock(&mutex_);
  wake_ = !running_;  // a runner at work sees the new event itself
}

bool Driver::ThreadHasWork() const { return wake_ || stopping_; }

void Driver::ThreadMain() {
  absl::Time next_tick = clock_.Now() + options_.tick;
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      mutex_.AwaitWithTimeout(absl::Condition(this, &Driver::ThreadHasWork),
                              next_tick - clock_.Now());
      if (stopping_) return;
      wake_ = false;
    }
    if (clock_.Now() >= next_tick) {
      next_tick = clock_.Now() + options_.tick;
      Post([this] { Tick(); }, /*bounded=*/false);
    }
    RunHere();
  }
}

void Driver::RunHere() {
  {
    absl::MutexLock lock(&mutex_);
    if (running_ || queue_.empty()) return;
    running_ = true;
  }
  RunUntilIdle();
}

void Driver::RunUntilIdle() {
  std::deque<Event> batch;
  while (true) {
    batch.clear();
    {
      absl::MutexLock lock(&mutex_);
      if (queue_.empty()) {
        running_ = false;
        return;
      }
      batch.swap(queue_);
    }
    for (Event& event : batch) event();
    AfterEvents();
  }
}

std::shared_ptr<Driver::Ticket> Driver::TakeTicket(std::string name) {
  auto ticket = std::make_shared<Ticket>();
  ticket->id = RequestId(next_request_.fetch_add(1));
  ticket->name = std::move(name);
  return ticket;
}

void Driver::Submit(std::shared_ptr<Ticket> ticket, GenerateTask task,
                    std::shared_ptr<RequestSink> sink) {
  const bool posted =
      Post([this, ticket, task = std::move(task),
            sink]() mutable { HandleSubmit(ticket, std::move(task), std::move(sink)); },
           /*bounded=*/true);
  if (posted) return WakeThread();
  sink->OnDone(
      WithRetryDelay(absl::ResourceExhaustedError("too many requests at once"), kRetryDelay));
}

void Driver::Submit(std::shared_ptr<Ticket> ticket, ScoreTask task,
                    std::shared_ptr<RequestSink> sink) {
  const bool posted =
      Post([this, ticket, task = std::move(task),
            sink]() mutable { HandleSubmit(ticket, std::move(task), std::move(sink)); },
           /*bounded=*/true);
  if (posted) return WakeThread();
  sink->OnDone(
      WithRetryDelay(absl::ResourceExhaustedError("too many requests at once"), kRetryDelay));
}

void Driver::Cancel(const std::shared_ptr<Ticket>& ticket, absl::Status reason) {
  // The flag stops a submission that is still on its way, the event one that has arrived.
  if (ticket->cancelled.exchange(true)) return;
  Post([this, id = ticket->id,
        reason = std::move(reason)] { scheduler_.Cancel(id, reason, &events_); },
       /*bounded=*/false);
  WakeThread();
}

void Driver::PostHello(std::shared_ptr<WorkerLink> link, WorkerDescription description) {
  Post(
      [this, link = std::move(link), description = std::move(description)]() mutable {
        HandleHello(link, std::move(description));
      },
      /*bounded=*/false);
}

void Driver::PostMessage(const std::shared_ptr<WorkerLink>& link, v1::WorkerMessage message) {
  const bool posted =
      Post([this, link,
            message = std::move(message)]() mutable { HandleMessage(link, std::move(message)); },
           /*bounded=*/true);
  if (!posted) link->Close(absl::ResourceExhaustedError("too many messages at once"));
}

void Driver::PostEnded(const std::shared_ptr<WorkerLink>& link) {
  Post(
      [this, link] {
        const auto found = workers_by_link_.find(link.get());
        if (found != workers_by_link_.end()) LoseWorker(found->second, "its stream ended");
      },
      /*bounded=*/false);
}

void Driver::Drain() {
  if (draining_.exchange(true)) return;
  if (serving_ || num_alive_ > 0) {
    spdlog::info("draining: {} requests are running or waiting", num_alive_.load());
  }
  Post([] {}, /*bounded=*/false);  // publishes the new state
  WakeThread();
}

void Driver::AbortRequests(absl::Status status) {
  // The step in flight goes on: its workers are not to blame and its answer is simply ignored.
  Post([this, status = std::move(status)] { scheduler_.FailAll(status, &events_); },
       /*bounded=*/false);
  WakeThread();
}

bool Driver::Ready() const {
  if (!serving_ || draining_ || leaving_) return false;
  const int64_t stuck_at = stuck_at_ns_.load();
  return stuck_at == 0 || ToNanos(clock_.Now()) < stuck_at;
}

std::string Driver::ReadyDetail() const {
  if (draining_) return "draining";
  if (leaving_) return "a worker is leaving";
  if (serving_) return Ready() ? "serving" : "a step is overdue";
  absl::MutexLock lock(&mutex_);
  return detail_ == "serving" ? "checking the first step" : detail_;
}

absl::Status Driver::failure() const {
  absl::MutexLock lock(&mutex_);
  return failure_;
}

void Driver::DescribeCluster(absl::AnyInvocable<void(v1::GetClusterResponse)> done) {
  Post(
      [this, done = std::move(done)]() mutable {
        v1::GetClusterResponse response;
        FillCluster(&response);
        done(std::move(response));
      },
      /*bounded=*/false);
  WakeThread();
}

void Driver::AfterEvents() {
  PerformActions();
  scheduler_.ExpireDeadlines(clock_.Now(), &events_);
  SendSteps();
  DeliverEvents();
  leaving_ = membership_.leaving();
  if (leaving_ && requests_.empty() && membership_.state() == Membership::State::kReady) {
    membership_.Drained(&actions_);
    PerformActions();
    DeliverEvents();
  }
  PublishState();
}

void Driver::SendSteps() {
  if (membership_.state() != Membership::State::kReady) return;
  while (steps_.size() < scheduler_.max_in_flight()) {
    const absl::Time now = clock_.Now();
    const std::optional<Step> step = scheduler_.PlanStep(now);
    if (!step.has_value()) return;
    StepInFlight in_flight{.id = step->step_id,
                           .num_tokens = step->num_tokens,
                           .sent = now,
                           .missing = {},
                           .outcomes = {}};
    // The workers count a step's time from its arrival, those before it included.
    const v1::CoordinatorMessage message = ToProto(
        *step, membership_.epoch(), options_.step_timeout * static_cast<double>(1 + steps_.size()));
    for (const auto& [worker, member] : membership_.members()) {
      if (!member.place.has_value()) continue;
      in_flight.missing.insert(worker);
      SendTo(worker, message);
    }
    steps_.push_back(std::move(in_flight));
    if (steps_.size() == 1) BeginStep(&steps_.front());
  }
}

// The oldest step in flight is what the workers compute now.
void Driver::BeginStep(StepInFlight* step) {
  step->begun = clock_.Now();
  const absl::Duration stuck_after =
      std::max(options_.stuck_after, scheduler_.ExpectedStepTime() * kOverdueFactor);
  stuck_at_ns_ = ToNanos(step->begun + stuck_after);
}

bool Driver::Answers(WorkerId worker) const {
  return std::any_of(options_.answering_ranks.begin(), options_.answering_ranks.end(),
                     [&](uint32_t rank) { return membership_.WorkerOfRank(rank) == worker; });
}

absl::Status Driver::HandleStepResult(WorkerId worker, v1::StepResult* result) {
  const Epoch epoch(result->epoch());
  if (epoch < membership_.epoch() || membership_.state() != Membership::State::kReady) {
    return absl::OkStatus();  // of an epoch that is over
  }
  const auto step = std::find_if(steps_.begin(), steps_.end(), [&](const StepInFlight& one) {
    return one.id.value() == result->step_id();
  });
  if (epoch > membership_.epoch() || step == steps_.end() || step->missing.erase(worker) == 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "StepResult ", result->step_id(), " of epoch ", result->epoch(), " is out of order"));
  }
  // A worker cannot have computed for longer than the step took.
  const absl::Duration took = clock_.Now() - step->sent;
  step->compute = std::max(
      step->compute, std::min(took, absl::Microseconds(static_cast<double>(result->compute_us()))));
  if (Answers(worker)) {
    absl::StatusOr<StepOutcome> outcome = FromProto(result);
    if (!outcome.ok()) return outcome.status();
    step->outcomes.emplace(worker, *std::move(outcome));
  }
  CompleteSteps();
  return absl::OkStatus();
}

void Driver::CompleteSteps() {
  while (!steps_.empty() && steps_.front().missing.empty()) {
    if (!CompleteStep()) return;
  }
}

// Of the oldest step, which all workers have answered. False when its outcome is not sound.
bool Driver::CompleteStep() {
  const absl::Time now = clock_.Now();
  StepInFlight step = std::move(steps_.front());
  steps_.pop_front();
  stuck_at_ns_ = 0;
  std::vector<StepOutcome> parts;
  for (auto& [worker, outcome] : step.outcomes) parts.push_back(std::move(outcome));
  const absl::Status applied = scheduler_.ApplyOutcome(std::span(parts), now, &events_);
  if (!applied.ok()) {
    // Nobody can say which of several answering workers is wrong; the first is asked to leave.
    const WorkerId culprit = step.outcomes.begin()->first;
    const std::shared_ptr<WorkerLink> link = links_.at(culprit);
    LoseWorker(culprit, std::string(applied.message()));
    link->Close(applied);
    return false;
  }
  if (!steps_.empty()) BeginStep(&steps_.front());
  ++steps_completed_;
  last_step_ = now;
  metrics_.steps.Increment();
  metrics_.step_tokens.Increment(step.num_tokens);
  metrics_.step_seconds.Observe(absl::ToDoubleSeconds(now - step.begun));
  metrics_.step_compute_seconds.Observe(absl::ToDoubleSeconds(step.compute));
  return true;
}

absl::Status Driver::CheckAccepting(const Ticket& ticket) const {
  if (draining_) {
    return WithReason(WithRetryDelay(absl::UnavailableError("the server is draining"), kRetryDelay),
                      "DRAINING");
  }
  if (!serving_ || leaving_) {
    return WithReason(WithRetryDelay(absl::UnavailableError(absl::StrCat("the model is not ready: ",
                                                                         membership_.Detail())),
                                     kRetryDelay),
                      "NOT_READY");
  }
  if (live_names_.contains(ticket.name)) {
    return WithField(
        absl::AlreadyExistsError(absl::StrCat("request_id: ", ticket.name, " is running already")),
        "request_id");
  }
  return absl::OkStatus();
}

template <typename Task>
void Driver::HandleSubmit(const std::shared_ptr<Ticket>& ticket, Task task,
                          std::shared_ptr<RequestSink> sink) {
  absl::Status status =
      ticket->cancelled ? absl::CancelledError("cancelled by the caller") : CheckAccepting(*ticket);
  double prompt_tokens = 0;
  if constexpr (std::is_same_v<Task, GenerateTask>) {
    prompt_tokens = static_cast<double>(task.prompt->size());
  } else {
    for (const auto& sequence : task.sequences) {
      prompt_tokens += static_cast<double>(sequence.size());
    }
  }
  if (status.ok()) status = scheduler_.Submit(ticket->id, std::move(task), clock_.Now());
  if (!status.ok()) {
    if (!absl::IsCancelled(status)) {
      const std::string reason = ReasonOf(status);
      metrics_.CountRejection(reason.empty() ? absl::StatusCodeToString(status.code()) : reason);
    }
    sink->OnDone(std::move(status));
    return;
  }
  metrics_.prompt_tokens.Increment(prompt_tokens);
  live_names_.insert(ticket->name);
  requests_.emplace(ticket->id.value(), LiveRequest{std::move(sink), ticket->name});
  num_alive_ = static_cast<uint32_t>(requests_.size());
}

void Driver::DeliverEvents() {
  std::vector<RequestEvent> events = std::exchange(events_, {});
  for (RequestEvent& event : events) Deliver(&event);
}

void Driver::Deliver(RequestEvent* event) {
  if (event->request == probe_) {
    if (!event->done.has_value()) return;
    probe_ = std::nullopt;
    serving_ = event->done->ok() && membership_.state() == Membership::State::kReady;
    if (serving_) spdlog::info("serving epoch={}", membership_.epoch().value());
    // Another formation would load the same weights.
    if (absl::IsInternal(*event->done)) Perform(InstanceFailed{.reason = *event->done});
    return;
  }
  const auto found = requests_.find(event->request.value());
  if (found == requests_.end()) return;
  RequestSink& sink = *found->second.sink;
  if (event->tokens.has_value()) {
    const TokenOutput& output = *event->tokens;
    const auto num_tokens = output.token_ids.size();
    generated_tokens_ += num_tokens;
    metrics_.generated_tokens.Increment(static_cast<double>(num_tokens));
    if (output.finish_reason != FinishReason::kNone) {
      metrics_.first_token_seconds.Observe(absl::ToDoubleSeconds(output.timing.first_token));
      metrics_.request_seconds.Observe(absl::ToDoubleSeconds(output.timing.total));
    }
    sink.OnTokens(std::move(*event->tokens));
  }
  if (event->prompt.has_value()) sink.OnPrompt(*std::move(event->prompt));
  if (event->scores.has_value()) sink.OnScores(std::move(*event->scores));
  if (!event->done.has_value()) return;
  metrics_.CountFinished(absl::StatusCodeToString(event->done->code()));
  sink.OnDone(*std::move(event->done));
  live_names_.erase(found->second.name);
  requests_.erase(found);
  num_alive_ = static_cast<uint32_t>(requests_.size());
}

}  // namespace essor::coordinator
