// The threads of one CPU rank.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace essor::kernels {

// Fork-join pool. The owner thread is member 0 and works too; ParallelFor may be called by it only.
// Waiting threads spin for a short, bounded time and then sleep on a futex, so that ranks that
// share cores make progress. Creating starts the threads, destroying joins them.
class ThreadPool {
 public:
  struct Options {
    uint32_t num_threads = 1;  // owner included
    std::vector<int> cpus;     // pin member i to cpus[i % size]; empty = not pinned
    // Iterations of the pause instruction before sleeping; 0 = sleep at once.
    uint32_t spin_iterations = 4000;
  };
  static std::unique_ptr<ThreadPool> Create(const Options& options);
  virtual ~ThreadPool() = default;

  virtual uint32_t num_threads() const = 0;

  // Calls body(thread) once on each member, thread in [0, num_threads); returns when all are done.
  // `body` must not throw. Costs about a microsecond when nobody sleeps.
  virtual void Run(const std::function<void(uint32_t thread)>& body) = 0;
};

}  // namespace essor::kernels
