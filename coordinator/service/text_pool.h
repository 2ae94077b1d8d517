// Threads for work on text (tokenising, rendering templates), which may take long and must delay
// neither the event loops of the front ends nor the steps.
#pragma once

#include <thread>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "common/bounded_queue.h"

namespace essor::coordinator {

// Thread-safe. The destructor runs what is queued and joins.
class TextPool {
 public:
  TextPool(int num_threads, size_t max_queued) : queue_(max_queued) {
    for (int i = 0; i < num_threads; ++i) {
      threads_.emplace_back([this] {
        while (auto task = queue_.Pop()) (*task)();
      });
    }
  }
  ~TextPool() {
    queue_.Close();
    for (std::thread& thread : threads_) thread.join();
  }

  // False when too much is queued already; `task` is then dropped.
  bool TryRun(absl::AnyInvocable<void()> task) { return queue_.TryPush(std::move(task)); }

 private:
  BoundedQueue<absl::AnyInvocable<void()>> queue_;
  std::vector<std::thread> threads_;
};

}  // namespace essor::coordinator
