#include "worker/parallel/waiting.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <chrono>
#include <climits>

namespace essor::worker {
namespace {

constexpr SteadyNanos kSpinOwnCore = 100'000;
constexpr SteadyNanos kSpinSharedCore = 2'000;
// A yield costs half a microsecond where nobody else wants the core.
constexpr SteadyNanos kYieldAfter = 10'000;

}  // namespace

SteadyNanos SteadyNow() {
  const auto since_start = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(since_start).count();
}

void SpinTurn(SteadyNanos waited) {
  if (waited >= kYieldAfter) {
    (void)sched_yield();
    return;
  }
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

SteadyNanos SpinBudget(const CoreShare& share) {
  const bool own_core = share.ranks_on_host <= share.cores_of_host &&
                        share.ranks_in_process <= share.cores_of_process;
  return own_core ? kSpinOwnCore : kSpinSharedCore;
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
