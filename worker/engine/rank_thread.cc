#include "worker/engine/rank_thread.h"

#include <utility>

namespace essor::worker {

RankThread::RankThread(size_t steps_max, MakeEngine make_engine, OnDone on_done)
    : steps_(steps_max),
      thread_([this, make_engine = std::move(make_engine), on_done = std::move(on_done)] {
        Work(make_engine, on_done);
      }) {}

RankThread::~RankThread() {
  steps_.Abandon();
  thread_.join();
}

absl::Status RankThread::WaitReady() {
  ready_.WaitForNotification();
  return status_;
}

bool RankThread::TrySubmit(std::shared_ptr<const StepInput> step) {
  return steps_.TryPush(std::move(step));
}

void RankThread::Work(const MakeEngine& make_engine, const OnDone& on_done) {
  absl::StatusOr<std::unique_ptr<Engine>> engine = make_engine();
  status_ = engine.status();
  ready_.Notify();
  if (!engine.ok()) return;
  bool failed = false;
  while (const auto step = steps_.Pop()) {
    if (failed) continue;
    absl::StatusOr<StepOutput> output = (*engine)->Run(**step);
    failed = !output.ok();
    on_done(std::move(output));
  }
}

}  // namespace essor::worker
