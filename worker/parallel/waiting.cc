#include "worker/parallel/waiting.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <climits>

namespace essor::worker {
namespace {

constexpr SteadyNanos kSpinOwnCore = 200'000;
constexpr SteadyNanos kSpinSharedCore = 2'000;
constexpr SteadyNanos kSpinInVain = 4'000;
constexpr uint32_t kWaitsPerProbe = 64;

}  // namespace

SteadyNanos SteadyNow() {
  const auto since_start = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(since_start).count();
}

SteadyNanos SpinBudget(const CoreShare& share) {
  const bool own_core = share.ranks_on_host <= share.cores_of_host &&
                        share.ranks_in_process <= share.cores_of_process;
  return own_core ? kSpinOwnCore : kSpinSharedCore;
}

SteadyNanos SpinGovernor::NextSpin() {
  probing_ = ++waits_ % kWaitsPerProbe == 0;
  return probing_ ? longest_ : current_;
}

void SpinGovernor::Report(bool arrived) {
  if (!arrived) {
    current_ = std::min(longest_, std::max(current_ / 2, kSpinInVain));
  } else {
    current_ = probing_ ? longest_ : std::min(longest_, current_ * 2);
  }
}

void FutexWait(const std::atomic<uint32_t>& word, uint32_t value, SteadyNanos timeout) {
  const timespec relative{.tv_sec = timeout / (1000 * kMillisecond),
                          .tv_nsec = timeout % (1000 * kMillisecond)};
  // Not the private form: waker and sleeper may be different processes.
  (void)syscall(SYS_futex, &word, FUTEX_WAIT, value, &relative, nullptr, 0);
}

void FutexWake(const std::atomic<uint32_t>& word) {
  (void)syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace essor::worker
