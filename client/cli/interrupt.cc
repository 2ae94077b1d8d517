#include "client/cli/interrupt.h"

#include <atomic>

namespace essor::cli {
namespace {

// A signal handler has no other way to reach its object.
std::atomic<int> signal_count = 0;
static_assert(std::atomic<int>::is_always_lock_free);

void Count(int) { signal_count.fetch_add(1, std::memory_order_relaxed); }

}  // namespace

Interrupt::Interrupt() {
  Reset();
  struct sigaction action = {};
  action.sa_handler = Count;  // no SA_RESTART: a read has to return
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, &old_int_);
  sigaction(SIGTERM, &action, &old_term_);
}

Interrupt::~Interrupt() {
  sigaction(SIGINT, &old_int_, nullptr);
  sigaction(SIGTERM, &old_term_, nullptr);
}

int Interrupt::count() const { return signal_count.load(std::memory_order_relaxed); }

void Interrupt::Reset() { signal_count.store(0, std::memory_order_relaxed); }

}  // namespace essor::cli
