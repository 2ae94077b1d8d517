// Which epochs of a data plane are over.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

namespace essor::worker {

// Thread-safe; shared by a data plane and its communicators (which may outlive it). Check() is one
// load while the epoch is alive, so it may stand in hot loops.
class EpochFence {
 public:
  // Every epoch up to `epoch` is aborted. A later call for an older epoch changes nothing.
  void Abort(uint64_t epoch, const std::string& reason) {
    absl::MutexLock lock(&mutex_);
    if (epoch <= aborted_.load(std::memory_order_relaxed)) return;
    reason_ = reason;
    aborted_.store(epoch, std::memory_order_release);
  }

  bool IsAborted(uint64_t epoch) const { return epoch <= aborted_.load(std::memory_order_acquire); }

  // OK, or Unavailable with the reason.
  absl::Status Check(uint64_t epoch) const {
    if (!IsAborted(epoch)) return absl::OkStatus();
    absl::MutexLock lock(&mutex_);
    return absl::UnavailableError("epoch " + std::to_string(epoch) + " was aborted: " + reason_);
  }

 private:
  mutable absl::Mutex mutex_;
  std::string reason_ ABSL_GUARDED_BY(mutex_);
  std::atomic<uint64_t> aborted_{0};  // epochs start at 1
};

}  // namespace essor::worker
