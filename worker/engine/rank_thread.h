// One rank of one epoch on its own thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/synchronization/notification.h"
#include "common/bounded_queue.h"
#include "worker/engine/engine.h"
#include "worker/engine/step.h"

namespace essor::worker {

// Thread-safe. The engine is created, used and destroyed on the thread. Destruction ends the thread
// after the step it is in, and drops those behind it (abort the exchanges first, so that this is
// soon).
class RankThread {
 public:
  using MakeEngine = std::function<absl::StatusOr<std::unique_ptr<Engine>>()>;
  using OnDone = std::function<void(absl::StatusOr<StepOutput>)>;

  // Starts the thread; `make_engine` runs on it, then `on_done` is called there after every step.
  // At most `steps_max` steps are queued.
  RankThread(size_t steps_max, MakeEngine make_engine, OnDone on_done);
  ~RankThread();

  // Waits for make_engine and returns its status.
  absl::Status WaitReady();
  // False when `steps_max` steps are queued already. Legal after WaitReady returned OK. Steps
  // after a failed one are dropped: the epoch is over.
  bool TrySubmit(std::shared_ptr<const StepInput> step);

 private:
  void Work(const MakeEngine& make_engine, const OnDone& on_done);

  BoundedQueue<std::shared_ptr<const StepInput>> steps_;
  absl::Notification ready_;
  absl::Status status_;  // written before ready_ is notified
  std::thread thread_;
};

}  // namespace essor::worker
