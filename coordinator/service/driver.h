// Runs the coordinator's core: events in, actions out, one at a time.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"
#include "common/clock.h"
#include "coordinator/core/membership.h"
#include "coordinator/core/scheduler.h"
#include "coordinator/service/cluster_codec.h"
#include "coordinator/service/coordinator_metrics.h"
#include "coordinator/service/request_sink.h"
#include "essor/v1/admin.pb.h"
#include "spdlog/common.h"

namespace essor::coordinator {

// The coordinator's end of one worker's stream. Thread-safe; nothing blocks.
class WorkerLink {
 public:
  virtual ~WorkerLink() = default;
  // Queues a message; dropped when the stream has ended.
  virtual void Send(const v1::CoordinatorMessage& message) = 0;
  // Ends the stream with `status`. The first call counts.
  virtual void Close(const absl::Status& status) = 0;
};

// Owns membership and scheduler. Whoever brings an event may run it: at any time one thread is the
// runner and works the queue off, others only append to it. A worker's answer is run by the thread
// that received it, so the next step leaves without a thread switch; everything else is handed to
// the driver's own thread. Outputs are delivered after the next step has been sent.
//
// Thread-safe. Sinks and links are called by the runner.
class Driver {
 public:
  struct Options {
    Membership::Options membership;
    Scheduler::Options scheduler;
    OutputModel output_model;
    AssignmentConstants assignment;
    // In the last stage the first rank of each data-parallel group answers for it.
    std::vector<uint32_t> answering_ranks = {0};
    uint32_t ranks_per_stage = 1;
    absl::Duration heartbeat_interval = absl::Milliseconds(500);
    absl::Duration step_timeout = absl::Seconds(60);
    absl::Duration stuck_after = absl::Milliseconds(1500);  // not ready beyond this, see Ready()
    absl::Duration tick = absl::Milliseconds(100);
  };

  // `clock` and `metrics` are borrowed and must outlive the driver.
  Driver(Options options, const Clock* clock, CoordinatorMetrics* metrics);
  // Ends requests and streams with Unavailable first.
  ~Driver();

  // Requests. An id is taken first so that Cancel() can be called at any time after.
  struct Ticket {
    RequestId id;
    std::string name;  // the client's request id
    std::atomic<bool> cancelled{false};
  };
  std::shared_ptr<Ticket> TakeTicket(std::string name);
  // `sink` hears of the request's end even when it is refused: Unavailable while no step can be
  // served or when draining, AlreadyExists when a request of the same name runs, ResourceExhausted
  // when a queue is full.
  void Submit(std::shared_ptr<Ticket> ticket, GenerateTask task, std::shared_ptr<RequestSink> sink);
  void Submit(std::shared_ptr<Ticket> ticket, ScoreTask task, std::shared_ptr<RequestSink> sink);
  void Cancel(const std::shared_ptr<Ticket>& ticket, absl::Status reason);

  // Worker streams. Events of one link must be posted in order; after Post() call RunHere().
  void PostHello(std::shared_ptr<WorkerLink> link, WorkerDescription description);
  void PostMessage(const std::shared_ptr<WorkerLink>& link, v1::WorkerMessage message);
  void PostEnded(const std::shared_ptr<WorkerLink>& link);
  // Runs queued events on this thread unless another one is at it.
  void RunHere();

  // Refuses new requests from now on; running ones go on. Cannot be undone.
  void Drain();
  // Ends every request with `status`.
  void AbortRequests(absl::Status status);
  bool draining() const { return draining_.load(); }
  // Accepted requests that have not ended.
  uint32_t num_alive_requests() const { return num_alive_.load(); }
  // Whether a step can be served now: an epoch whose first step succeeded, not draining, and no
  // step overdue. Never waits.
  bool Ready() const;
  // Why not, in one sentence.
  std::string ReadyDetail() const;
  // The error that ended the instance for good, once there is one.
  absl::Status failure() const;
  // Calls `done` with the state of the cluster (without ModelInfo and build), by the runner.
  void DescribeCluster(absl::AnyInvocable<void(v1::GetClusterResponse)> done);

 private:
  using Event = absl::AnyInvocable<void()>;
  struct StepInFlight {
    StepId id;
    uint32_t num_tokens = 0;
    absl::Time sent;
    absl::Time begun = absl::InfiniteFuture();      // when the one before was done, at the earliest
    std::set<WorkerId> missing;                     // have not answered
    std::map<WorkerId, StepOutcome> outcomes;       // of the answering workers
    absl::Duration compute = absl::ZeroDuration();  // longest of the workers that have answered
  };
  struct LiveRequest {
    std::shared_ptr<RequestSink> sink;
    std::string name;
  };

  bool Post(Event event, bool bounded);
  void WakeThread();
  bool ThreadHasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ThreadMain();
  void RunUntilIdle();

  // Everything below is called by the runner only.
  void AfterEvents();
  void Tick();
  void PerformActions();
  void Perform(const SendAssign& action);
  void Perform(const SendConnect& action);
  void Perform(const SendRelease& action);
  void Perform(const SendShutdown& action);
  void Perform(const CloseWorker& action);
  void Perform(const EpochReady& action);
  void Perform(const EpochLost& action);
  void Perform(const InstanceFailed& action);
  void SendTo(WorkerId worker, const v1::CoordinatorMessage& message);
  void HandleHello(const std::shared_ptr<WorkerLink>& link, WorkerDescription description);
  void HandleMessage(const std::shared_ptr<WorkerLink>& link, v1::WorkerMessage message);
  absl::Status Dispatch(WorkerId worker, v1::WorkerMessage* message);
  absl::Status HandleStepResult(WorkerId worker, v1::StepResult* result);
  void CompleteSteps();
  bool CompleteStep();
  void BeginStep(StepInFlight* step);
  bool Answers(WorkerId worker) const;
  void LoseWorker(WorkerId worker, const std::string& reason);
  // Of losses in the log: expected ones when everything stops anyway are not warned of.
  spdlog::level::level_enum LossLevel() const;
  template <typename Task>
  void HandleSubmit(const std::shared_ptr<Ticket>& ticket, Task task,
                    std::shared_ptr<RequestSink> sink);
  absl::Status CheckAccepting(const Ticket& ticket) const;
  void SendSteps();
  void DeliverEvents();
  void Deliver(RequestEvent* event);
  void PublishState();
  void FillCluster(v1::GetClusterResponse* response) const;

  const Options options_;
  const Clock& clock_;
  CoordinatorMetrics& metrics_;

  // Owned by the runner.
  Membership membership_;
  Scheduler scheduler_;
  std::map<WorkerId, std::shared_ptr<WorkerLink>> links_;
  absl::flat_hash_map<const WorkerLink*, WorkerId> workers_by_link_;
  absl::flat_hash_map<uint64_t, LiveRequest> requests_;  // by RequestId
  absl::flat_hash_set<std::string> live_names_;
  std::vector<MembershipAction> actions_;
  std::vector<RequestEvent> events_;
  std::deque<StepInFlight> steps_;  // in flight, the oldest first
  std::optional<RequestId> probe_;  // the first request of an epoch, our own
  uint64_t steps_completed_ = 0;
  uint64_t generated_tokens_ = 0;
  absl::Time last_step_ = absl::InfinitePast();
  absl::Time last_tick_ = absl::InfinitePast();

  // Read by any thread.
  std::atomic<uint64_t> next_request_{1};
  std::atomic<bool> serving_{false};
  std::atomic<bool> leaving_{false};
  std::atomic<bool> draining_{false};
  std::atomic<uint32_t> num_alive_{0};
  // When the oldest step in flight counts as stuck, in nanoseconds of the clock; 0 = none in
  // flight.
  std::atomic<int64_t> stuck_at_ns_{0};

  mutable absl::Mutex mutex_;
  std::deque<Event> queue_ ABSL_GUARDED_BY(mutex_);
  bool running_ ABSL_GUARDED_BY(mutex_) = false;
  bool wake_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::string detail_ ABSL_GUARDED_BY(mutex_);
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);

  std::thread thread_;
};

}  // namespace essor::coordinator
