// The driver's dealings with workers: joins, messages, what membership wants done.
#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/error_details.h"
#include "common/log.h"
#include "coordinator/service/driver.h"

namespace essor::coordinator {
namespace {

// A tick this many times too late means that this process did not run.
constexpr int kPausedTicks = 6;

// Of all data-parallel groups.
struct KvUse {
  uint32_t total = 0;
  uint32_t used = 0;
  uint32_t cached = 0;
};

KvUse SumOfGroups(const Scheduler& scheduler) {
  KvUse sum;
  for (uint32_t group = 0; group < scheduler.num_groups(); ++group) {
    const KvCache& kv = scheduler.kv(group);
    sum.total += kv.num_blocks();
    sum.used += kv.num_used();
    sum.cached += kv.num_cached();
  }
  return sum;
}

void CountUpTo(uint64_t total, prometheus::Counter* counter) {
  const double increase = static_cast<double>(total) - counter->Value();
  if (increase > 0) counter->Increment(increase);
}

v1::InstanceState StateOf(Membership::State state, bool serving, bool draining) {
  if (draining) return v1::INSTANCE_STATE_DRAINING;
  switch (state) {
    case Membership::State::kWaiting:
    case Membership::State::kReleasing:
      return v1::INSTANCE_STATE_WAITING;
    case Membership::State::kLoading:
    case Membership::State::kConnecting:
      return v1::INSTANCE_STATE_LOADING;
    case Membership::State::kReady:
      return serving ? v1::INSTANCE_STATE_READY : v1::INSTANCE_STATE_LOADING;
  }
  return v1::INSTANCE_STATE_UNSPECIFIED;
}

}  // namespace

void Driver::HandleHello(const std::shared_ptr<WorkerLink>& link, WorkerDescription description) {
  const std::string who = absl::StrCat(LogSafe(description.host), " pid ", description.pid);
  const absl::StatusOr<WorkerId> worker =
      membership_.Join(std::move(description), clock_.Now(), &actions_);
  if (!worker.ok()) {
    spdlog::warn("refused a worker from {}: {}", who,
                 LogSafe(std::string(worker.status().message())));
    link->Close(worker.status());
    return;
  }
  links_[*worker] = link;
  workers_by_link_[link.get()] = *worker;
  v1::CoordinatorMessage message;
  message.mutable_welcome()->set_worker_id(worker->value());
  message.mutable_welcome()->set_heartbeat_interval_ms(
      static_cast<uint32_t>(absl::ToInt64Milliseconds(options_.heartbeat_interval)));
  link->Send(message);
  spdlog::info("worker {} joined from {}; {}", worker->value(), who, membership_.Detail());
}

void Driver::HandleMessage(const std::shared_ptr<WorkerLink>& link, v1::WorkerMessage message) {
  const auto found = workers_by_link_.find(link.get());
  if (found == workers_by_link_.end()) return;  // its stream is being closed
  const WorkerId worker = found->second;
  membership_.Heard(worker, clock_.Now());
  const absl::Status status = Dispatch(worker, &message);
  if (status.ok()) return;
  LoseWorker(worker, std::string(status.message()));
  link->Close(status);
}

absl::Status Driver::Dispatch(WorkerId worker, v1::WorkerMessage* message) {
  const absl::Time now = clock_.Now();
  switch (message->message_case()) {
    case v1::WorkerMessage::kStepResult:
      return HandleStepResult(worker, message->mutable_step_result());
    case v1::WorkerMessage::kHeartbeat:
      return absl::OkStatus();
    case v1::WorkerMessage::kLoadProgress: {
      const v1::LoadProgress& progress = message->load_progress();
      if (progress.rank_size() != progress.bytes_done_size() ||
          progress.rank_size() != progress.bytes_total_size()) {
        return absl::InvalidArgumentError("LoadProgress has arrays of different lengths");
      }
      std::vector<double> fractions;
      for (int i = 0; i < progress.rank_size(); ++i) {
        const auto total = static_cast<double>(std::max<uint64_t>(progress.bytes_total(i), 1));
        fractions.push_back(static_cast<double>(progress.bytes_done(i)) / total);
      }
      return membership_.LoadProgress(worker, Epoch(progress.epoch()),
                                      {progress.rank().begin(), progress.rank().end()}, fractions,
                                      now);
    }
    case v1::WorkerMessage::kLoaded:
      return membership_.Loaded(worker, Epoch(message->loaded().epoch()),
                                message->loaded().weight_bytes(), message->loaded().kv_bytes(), now,
                                &actions_);
    case v1::WorkerMessage::kReady:
      return membership_.Ready(worker, Epoch(message->ready().epoch()), now, &actions_);
    case v1::WorkerMessage::kReleased:
      return membership_.Released(worker, Epoch(message->released().epoch()), now, &actions_);
    case v1::WorkerMessage::kFailure: {
      const v1::RankFailure& failure = message->failure();
      const absl::Status status(static_cast<absl::StatusCode>(failure.code()),
                                LogSafe(failure.message(), 1024));
      return membership_.RankFailed(worker, Epoch(failure.epoch()), failure.rank(), status,
                                    failure.fatal(), now, &actions_);
    }
    case v1::WorkerMessage::kLeaving:
      spdlog::info("worker {} wants to leave", worker.value());
      membership_.Leaving(worker, &actions_);
      return absl::OkStatus();
    case v1::WorkerMessage::kHello:
      return absl::FailedPreconditionError("a second Hello on one stream");
    case v1::WorkerMessage::MESSAGE_NOT_SET:
      return absl::InvalidArgumentError("an empty message");
  }
  return absl::OkStatus();
}

spdlog::level::level_enum Driver::LossLevel() const {
  return draining_ && requests_.empty() ? spdlog::level::info : spdlog::level::warn;
}

void Driver::LoseWorker(WorkerId worker, const std::string& reason) {
  spdlog::log(LossLevel(), "worker {} is lost: {}", worker.value(), LogSafe(reason));
  membership_.Lost(worker, reason, clock_.Now(), &actions_);
  const auto found = links_.find(worker);
  if (found == links_.end()) return;
  workers_by_link_.erase(found->second.get());
  links_.erase(found);
}

void Driver::Tick() {
  const absl::Time now = clock_.Now();
  // After a pause of this process itself (stopped, or starved of CPU) the workers' heartbeats are
  // still unread: judge nobody by them yet.
  const bool paused = now - std::exchange(last_tick_, now) > options_.tick * kPausedTicks;
  if (!paused) membership_.Tick(now, &actions_);
  if (steps_.empty() || now - steps_.front().begun <= options_.step_timeout) return;
  const std::string silent = absl::StrJoin(
      steps_.front().missing, ", ",
      [](std::string* out, WorkerId worker) { absl::StrAppend(out, worker.value()); });
  membership_.AbandonEpoch(absl::StrCat("step ", steps_.front().id.value(),
                                        " passed its deadline; no answer from worker ", silent),
                           now, &actions_);
}

void Driver::PerformActions() {
  while (!actions_.empty()) {
    const std::vector<MembershipAction> actions = std::exchange(actions_, {});
    for (const MembershipAction& action : actions) {
      std::visit([this](const auto& chosen) { Perform(chosen); }, action);
    }
  }
}

void Driver::SendTo(WorkerId worker, const v1::CoordinatorMessage& message) {
  const auto found = links_.find(worker);
  if (found != links_.end()) found->second->Send(message);
}

void Driver::Perform(const SendAssign& action) {
  spdlog::info("assigning epoch={} worker={} blocks={} plan={}", action.epoch.value(),
               action.worker.value(), action.assignment.capacity.num_blocks,
               options_.assignment.plan);
  SendTo(action.worker, ToProto(action, options_.assignment));
}

void Driver::Perform(const SendConnect& action) {
  SendTo(action.worker, ToProto(action, options_.membership.connect_timeout));
}

void Driver::Perform(const SendRelease& action) { SendTo(action.worker, ToProto(action)); }

void Driver::Perform(const SendShutdown& action) {
  v1::CoordinatorMessage message;
  message.mutable_shutdown()->set_reason("the worker asked to leave");
  SendTo(action.worker, message);
}

void Driver::Perform(const CloseWorker& action) {
  const auto found = links_.find(action.worker);
  if (found == links_.end()) return;
  spdlog::warn("closing the stream of worker {}: {}", action.worker.value(),
               LogSafe(std::string(action.status.message())));
  found->second->Close(action.status);
  workers_by_link_.erase(found->second.get());
  links_.erase(found);
}

void Driver::Perform(const EpochReady& action) {
  spdlog::info("epoch {} is formed with {} KV blocks", action.epoch.value(),
               action.capacity.num_blocks);
  scheduler_.Reset(action.capacity);
  // Ready means that a step went through every rank: the first one is our own.
  GenerateTask probe;
  probe.prompt = std::make_shared<const std::vector<TokenId>>(1, TokenId{0});
  probe.sampling.temperature = 0;
  probe.ignore_eos = true;
  probe_ = RequestId(next_request_.fetch_add(1));
  const absl::Status submitted = scheduler_.Submit(*probe_, std::move(probe), clock_.Now());
  if (!submitted.ok()) {
    spdlog::error("the first step cannot be planned: {}", std::string(submitted.message()));
  }
}

void Driver::Perform(const EpochLost& action) {
  spdlog::log(LossLevel(), "epoch {} is lost: {}", action.epoch.value(),
              LogSafe(std::string(action.reason.message())));
  metrics_.epochs_lost.Increment();
  serving_ = false;
  probe_ = std::nullopt;
  steps_.clear();
  stuck_at_ns_ = 0;
  // What becomes of running requests when their epoch is lost is decided here and nowhere else:
  // they end, and their callers may try again. The message names no worker or host.
  scheduler_.FailAll(
      WithReason(
          WithRetryDelay(absl::UnavailableError("a worker that holds a part of the model was lost"),
                         absl::Seconds(1)),
          "INSTANCE_LOST"),
      &events_);
}

void Driver::Perform(const InstanceFailed& action) {
  spdlog::error("the model cannot be served: {}", LogSafe(std::string(action.reason.message())));
  absl::MutexLock lock(&mutex_);
  if (failure_.ok()) failure_ = action.reason;
}

void Driver::PublishState() {
  metrics_.requests_running.Set(probe_.has_value() ? 0 : scheduler_.num_running_requests());
  metrics_.requests_waiting.Set(scheduler_.num_waiting_requests());
  const KvUse kv = SumOfGroups(scheduler_);
  metrics_.kv_blocks_used.Set(kv.used);
  metrics_.kv_blocks_cached.Set(kv.cached);
  metrics_.kv_blocks_total.Set(kv.total);
  CountUpTo(scheduler_.cached_tokens(), &metrics_.cached_tokens);
  CountUpTo(scheduler_.num_preemptions(), &metrics_.preemptions);
  CountUpTo(scheduler_.discarded_tokens(), &metrics_.discarded_tokens);
  metrics_.epoch.Set(static_cast<double>(membership_.epoch().value()));
  metrics_.workers.Set(static_cast<double>(membership_.members().size()));
  metrics_.ready.Set(Ready() ? 1 : 0);
  if (serving_) return;  // the detail is not read then
  std::string detail = membership_.Detail();
  absl::MutexLock lock(&mutex_);
  detail_ = std::move(detail);
}

void Driver::FillCluster(v1::GetClusterResponse* response) const {
  const absl::Time now = clock_.Now();
  response->set_state(StateOf(membership_.state(), serving_, draining_));
  response->set_detail(draining_ ? "draining" : membership_.Detail());
  response->set_epoch(membership_.epoch().value());
  response->set_plan(options_.assignment.plan);
  const uint32_t ranks_per_stage = options_.ranks_per_stage;
  for (const auto& [id, member] : membership_.members()) {
    v1::WorkerInfo* const worker = response->add_workers();
    worker->set_worker_id(id.value());
    worker->set_host(member.description.host);
    worker->set_pid(member.description.pid);
    worker->set_build(member.description.build);
    worker->set_num_devices(member.description.num_devices);
    worker->set_seconds_since_heard(absl::ToDoubleSeconds(now - member.heard));
    if (!member.place.has_value()) continue;
    const auto [first, end] = membership_.RanksOf(*member.place);
    for (uint32_t rank = first; rank < end; ++rank) {
      v1::RankInfo* const info = response->add_ranks();
      info->set_rank(rank);
      info->set_worker_id(id.value());
      info->set_stage(rank / ranks_per_stage);
      info->set_load_fraction(member.load_fraction[rank - first]);
      info->set_weight_bytes(member.weight_bytes / (end - first));
      info->set_kv_bytes(member.kv_bytes / (end - first));
    }
  }
  response->set_requests_running(probe_.has_value() ? 0 : scheduler_.num_running_requests());
  response->set_requests_waiting(scheduler_.num_waiting_requests());
  const KvUse kv = SumOfGroups(scheduler_);
  response->set_kv_blocks_total(kv.total);
  response->set_kv_blocks_used(kv.used);
  response->set_steps_completed(steps_completed_);
  response->set_generated_tokens(generated_tokens_);
  response->set_seconds_since_last_step(
      steps_completed_ == 0 ? 0 : absl::ToDoubleSeconds(now - last_step_));
}

}  // namespace essor::coordinator
