// How ranks wait for each other: a short spin, because the peer usually is microseconds away, then
// sleep in slices, because it may need this core. Between slices the waiter looks for what no peer
// can announce: its death, the deadline, an abort.
#pragma once

#include <atomic>
#include <cstdint>

namespace essor::worker {

// Nanoseconds of Clock::Steady(). Integers, because waits read the clock often.
using SteadyNanos = int64_t;
SteadyNanos SteadyNow();

inline constexpr SteadyNanos kMillisecond = 1'000'000;
// Longest sleep without looking around: bounds how long an abort or a death goes unnoticed.
inline constexpr SteadyNanos kSliceMax = 10 * kMillisecond;

// Tells the core that this is a spin loop.
inline void SpinPause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

struct CoreShare {
  uint32_t ranks_on_host = 1;
  uint32_t cores_of_host = 1;
  uint32_t ranks_in_process = 1;
  uint32_t cores_of_process = 1;  // what the process may run on, before its threads are pinned
};

// The longest spin: as long as a rank may be late by an ordinary imbalance when every rank has a
// core of its own; almost nothing when ranks share cores, where spinning keeps the peer from
// running.
SteadyNanos SpinBudget(const CoreShare& share);

// Decides how long each wait of one thread spins before it sleeps. Cores may be shared in ways that
// SpinBudget() cannot see (other programs, quotas), and then a spin only burns the time in which
// the peer could run. So the spin shrinks while spinning is in vain and grows while it is not; now
// and then a wait spins for the longest time, because a thread that sleeps never learns that
// spinning would do again.
//
//   const SteadyNanos spin = governor.NextSpin();   // spin at most that long
//   governor.Report(arrived);                       // whether that was enough
class SpinGovernor {
 public:
  explicit SpinGovernor(SteadyNanos longest) : longest_(longest), current_(longest) {}
  SteadyNanos NextSpin();
  void Report(bool arrived);

 private:
  const SteadyNanos longest_;
  SteadyNanos current_;  // 0 < current_ <= longest_, unless longest_ is 0
  uint32_t waits_ = 0;
  bool probing_ = false;
};

// Sleeps until `word` is no longer `value`, somebody calls FutexWake on it, or `timeout` is over;
// may also return early. The word may lie in memory that is shared with other processes and
// read-only here.
void FutexWait(const std::atomic<uint32_t>& word, uint32_t value, SteadyNanos timeout);
void FutexWake(const std::atomic<uint32_t>& word);

}  // namespace essor::worker
