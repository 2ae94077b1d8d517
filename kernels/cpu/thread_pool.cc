#include "kernels/cpu/thread_pool.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <system_error>
#include <thread>

#include "common/check.h"

namespace essor::kernels {
namespace {

static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t) &&
                  std::atomic<uint32_t>::is_always_lock_free,
              "the kernel reads the futex word as a plain 32-bit integer");

// Sleeps while *word == expected; may return early for any reason, so callers loop.
void FutexWait(std::atomic<uint32_t>* word, uint32_t expected) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), FUTEX_WAIT_PRIVATE, expected, nullptr,
          nullptr, 0);
}

void FutexWakeAll(std::atomic<uint32_t>* word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), FUTEX_WAKE_PRIVATE, INT_MAX, nullptr,
          nullptr, 0);
}

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

bool PinCallingThread(int cpu) {
  if (cpu < 0 || cpu >= CPU_SETSIZE) return false;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  return sched_setaffinity(0, sizeof(set), &set) == 0;
}

// How no wake-up is lost. A member announces itself in sleepers_ and then asks the kernel to sleep
// only if generation_ still has the value it saw; the owner changes generation_ and then looks at
// sleepers_. All four accesses are sequentially consistent, so at least one side sees the other:
// the owner wakes, or the kernel refuses to let the member sleep. The owner's own wait on
// remaining_ (announced in owner_sleeps_) is the mirror image.
class FutexThreadPool final : public ThreadPool {
 public:
  explicit FutexThreadPool(const Options& options) : options_(options) {
    ESSOR_CHECK(options.num_threads >= 1);
    PinMember(0);
    threads_.reserve(options.num_threads - 1);
    for (uint32_t member = 1; member < options.num_threads; ++member) {
      try {
        threads_.emplace_back([this, member] { MemberLoop(member); });
      } catch (const std::system_error&) {
        break;  // out of threads: go on with the members there are
      }
    }
    num_threads_ = static_cast<uint32_t>(threads_.size()) + 1;
  }

  ~FutexThreadPool() override {
    stop_ = true;
    StartGeneration();
    for (std::thread& thread : threads_) thread.join();
  }

  uint32_t num_threads() const override { return num_threads_; }

  uint32_t num_unpinned() const override { return num_unpinned_.load(std::memory_order_relaxed); }

  void Run(absl::FunctionRef<void(uint32_t)> body) override {
    if (num_threads_ == 1) {
      body(0);
      return;
    }
    body_ = &body;
    remaining_.store(num_threads_ - 1, std::memory_order_relaxed);
    StartGeneration();
    body(0);
    WaitForMembers();
  }

 private:
  void PinMember(uint32_t member) {
    if (options_.cpus.empty()) return;
    if (!PinCallingThread(options_.cpus[member % options_.cpus.size()])) {
      num_unpinned_.fetch_add(1, std::memory_order_relaxed);
    }
  }

  // Publishes body_ (or stop_) to the members.
  void StartGeneration() {
    generation_.fetch_add(1, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) != 0) FutexWakeAll(&generation_);
  }

  void MemberLoop(uint32_t member) {
    PinMember(member);
    uint32_t seen = 0;
    while (true) {
      seen = AwaitGenerationAfter(seen);
      if (stop_) return;
      (*body_)(member);
      if (remaining_.fetch_sub(1, std::memory_order_seq_cst) == 1 &&
          owner_sleeps_.load(std::memory_order_seq_cst)) {
        FutexWakeAll(&remaining_);
      }
    }
  }

  uint32_t AwaitGenerationAfter(uint32_t seen) {
    for (uint32_t i = 0; i < options_.spin_iterations; ++i) {
      const uint32_t current = generation_.load(std::memory_order_acquire);
      if (current != seen) return current;
      Pause();
    }
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    uint32_t current = generation_.load(std::memory_order_seq_cst);
    while (current == seen) {
      FutexWait(&generation_, seen);
      current = generation_.load(std::memory_order_seq_cst);
    }
    sleepers_.fetch_sub(1, std::memory_order_relaxed);
    return current;
  }

  void WaitForMembers() {
    for (uint32_t i = 0; i < options_.spin_iterations; ++i) {
      if (remaining_.load(std::memory_order_acquire) == 0) return;
      Pause();
    }
    owner_sleeps_.store(true, std::memory_order_seq_cst);
    uint32_t left = remaining_.load(std::memory_order_seq_cst);
    while (left != 0) {
      FutexWait(&remaining_, left);
      left = remaining_.load(std::memory_order_seq_cst);
    }
    owner_sleeps_.store(false, std::memory_order_relaxed);
  }

  const Options options_;
  uint32_t num_threads_ = 1;
  std::vector<std::thread> threads_;

  // Written by the owner while no member runs a body, published by generation_.
  const absl::FunctionRef<void(uint32_t)>* body_ = nullptr;
  bool stop_ = false;

  // Each on its own cache line: the members poll the first while others count down the second.
  alignas(64) std::atomic<uint32_t> generation_{0};
  std::atomic<uint32_t> sleepers_{0};
  alignas(64) std::atomic<uint32_t> remaining_{0};  // members still in the current body
  std::atomic<bool> owner_sleeps_{false};
  alignas(64) std::atomic<uint32_t> num_unpinned_{0};
};

}  // namespace

std::unique_ptr<ThreadPool> ThreadPool::Create(const Options& options) {
  return std::make_unique<FutexThreadPool>(options);
}

}  // namespace essor::kernels
