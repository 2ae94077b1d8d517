// The threads of one CPU rank.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"

namespace essor::kernels {

// Fork-join pool. The owner thread is member 0 and works too; Run may be called by it only, and
// not from inside a body. Waiting threads spin for a short, bounded time and then sleep on a futex,
// so that ranks that share cores make progress. Creating starts the threads, destroying joins them.
class ThreadPool {
 public:
  struct Options {
    uint32_t num_threads = 1;    // owner included; at least 1
    std::vector<int> cpus = {};  // pin member i to cpus[i % size]; empty = not pinned
    // Iterations of the pause instruction before sleeping; 0 = sleep at once.
    uint32_t spin_iterations = 4000;
  };
  // Pins the calling thread, the owner, when `cpus` is given. Where the system refuses a thread,
  // the pool has fewer members than asked for; see num_threads().
  static std::unique_ptr<ThreadPool> Create(const Options& options);
  virtual ~ThreadPool() = default;

  virtual uint32_t num_threads() const = 0;
  // Members whose pinning the system refused (a CPU outside the process's set, say). They run
  // unpinned: pinning is for speed only. Complete after the first Run.
  virtual uint32_t num_unpinned() const = 0;

  // Calls body(thread) once on each member, thread in [0, num_threads); returns when all are done.
  // `body` must not throw. It is borrowed for the call: nothing is allocated. Costs about a
  // microsecond when nobody sleeps. What the owner wrote before is seen by every member, and what
  // the members wrote is seen by the owner afterwards.
  virtual void Run(absl::FunctionRef<void(uint32_t thread)> body) = 0;
};

}  // namespace essor::kernels
