// Time as a dependency. Everything that waits or measures takes a Clock, so that tests and
// simulations move time themselves.
#pragma once

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace essor {

// Thread-safe. Now() is monotonic: it never jumps with the wall clock and must not be compared
// across processes.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() const = 0;
  // The process-wide steady clock; never deleted.
  static const Clock& Steady();
};

// A clock that moves only when told. Thread-safe.
class ManualClock : public Clock {
 public:
  explicit ManualClock(absl::Time start = absl::UnixEpoch()) : now_(start) {}
  absl::Time Now() const override;
  void Advance(absl::Duration by);

 private:
  mutable absl::Mutex mutex_;
  absl::Time now_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace essor
