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

// One turn of a spin loop that has gone on for `waited`: tells the core, and after the first few
// microseconds lets other threads run, because the peer may be queued behind this one.
void SpinTurn(SteadyNanos waited);

struct CoreShare {
  uint32_t ranks_on_host = 1;
  uint32_t cores_of_host = 1;
  uint32_t ranks_in_process = 1;
  uint32_t cores_of_process = 1;  // what the process may run on, before its threads are pinned
};

// How long to spin: as long as a rank may be late by an ordinary imbalance when every rank has a
// core of its own; almost not at all when ranks share cores, where spinning keeps the peer from
// running.
SteadyNanos SpinBudget(const CoreShare& share);

// Sleeps until `word` is no longer `value`, somebody calls FutexWake on it, or `timeout` is over;
// may also return early. The word may lie in memory that is shared with other processes and
// read-only here.
void FutexWait(const std::atomic<uint32_t>& word, uint32_t value, SteadyNanos timeout);
void FutexWake(const std::atomic<uint32_t>& word);

}  // namespace essor::worker
