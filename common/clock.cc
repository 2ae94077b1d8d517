#include "common/clock.h"

#include <chrono>

namespace essor {
namespace {

class SteadyClock : public Clock {
 public:
  absl::Time Now() const override {
    const auto since_start = std::chrono::steady_clock::now().time_since_epoch();
    return absl::UnixEpoch() + absl::FromChrono(since_start);
  }
};

}  // namespace

const Clock& Clock::Steady() {
  static const SteadyClock* const kClock = new SteadyClock();
  return *kClock;
}

absl::Time ManualClock::Now() const {
  absl::MutexLock lock(&mutex_);
  return now_;
}

void ManualClock::Advance(absl::Duration by) {
  absl::MutexLock lock(&mutex_);
  now_ += by;
}

}  // namespace essor
