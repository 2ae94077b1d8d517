// Teaches ThreadSanitizer what absl::Mutex, CondVar and Notification order. Debian's Abseil is not
// instrumented, so without this every guarded field looks like a race. Linked into the executables
// of the tsan preset only, where the linker sends the calls of our code here (--wrap, see
// cmake/EssorToolchain.cmake) and __real_X is Abseil's own X.
#include <sanitizer/tsan_interface.h>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

extern "C" {
// Part of the sanitizer's run-time library, without a header.
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);

#define ESSOR_WRAP_LOCK(symbol)           \
  void __real_##symbol(absl::Mutex* mu);  \
  void __wrap_##symbol(absl::Mutex* mu) { \
    __real_##symbol(mu);                  \
    __tsan_acquire(mu);                   \
  }

// Abseil evaluates waiters' conditions while it unlocks or waits: reads under the lock that come
// after the release that is told here.
#define ESSOR_WRAP_UNLOCK(symbol)                 \
  void __real_##symbol(absl::Mutex* mu);          \
  void __wrap_##symbol(absl::Mutex* mu) {         \
    __tsan_release(mu);                           \
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__); \
    __real_##symbol(mu);                          \
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);   \
  }

// A wait gives the mutex up and takes it again.
#define ESSOR_WRAP_WAIT(result_type, symbol, parameters, arguments) \
  result_type __real_##symbol parameters;                           \
  result_type __wrap_##symbol parameters {                          \
    __tsan_release(mu);                                             \
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);                   \
    const Reacquire reacquire{mu};                                  \
    return __real_##symbol arguments;                               \
  }
}

namespace {
struct Reacquire {
  absl::Mutex* mu;
  ~Reacquire() {
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
    __tsan_acquire(mu);
  }
};

// Notification's flag, which HasBeenNotified() reads inline, lies behind its mutex.
void* FlagOf(const absl::Notification* notification) {
  return reinterpret_cast<char*>(const_cast<absl::Notification*>(notification)) +
         sizeof(absl::Mutex);
}

// Abseil's deadlock detector keeps a graph of its own under a lock that the sanitizer does not see;
// the sanitizer finds lock inversions itself.
[[maybe_unused]] const bool kNoDeadlockDetector = [] {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  return true;
}();
}  // namespace

extern "C" {

ESSOR_WRAP_LOCK(_ZN4absl7debian35Mutex4LockEv)
ESSOR_WRAP_LOCK(_ZN4absl7debian35Mutex10ReaderLockEv)
ESSOR_WRAP_UNLOCK(_ZN4absl7debian35Mutex6UnlockEv)
ESSOR_WRAP_UNLOCK(_ZN4absl7debian35Mutex12ReaderUnlockEv)

ESSOR_WRAP_WAIT(void, _ZN4absl7debian35Mutex5AwaitERKNS0_9ConditionE,
                (absl::Mutex * mu, const absl::Condition& condition), (mu, condition))
ESSOR_WRAP_WAIT(bool, _ZN4absl7debian35Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE,
                (absl::Mutex * mu, const absl::Condition& condition, absl::Duration timeout),
                (mu, condition, timeout))
ESSOR_WRAP_WAIT(bool, _ZN4absl7debian35Mutex17AwaitWithDeadlineERKNS0_9ConditionENS0_4TimeE,
                (absl::Mutex * mu, const absl::Condition& condition, absl::Time deadline),
                (mu, condition, deadline))
ESSOR_WRAP_WAIT(void, _ZN4absl7debian37CondVar4WaitEPNS0_5MutexE,
                (absl::CondVar * variable, absl::Mutex* mu), (variable, mu))
ESSOR_WRAP_WAIT(bool, _ZN4absl7debian37CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE,
                (absl::CondVar * variable, absl::Mutex* mu, absl::Duration timeout),
                (variable, mu, timeout))
ESSOR_WRAP_WAIT(bool, _ZN4absl7debian37CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE,
                (absl::CondVar * variable, absl::Mutex* mu, absl::Time deadline),
                (variable, mu, deadline))

// TryLock acquires only when it succeeds.
bool __real__ZN4absl7debian35Mutex7TryLockEv(absl::Mutex* mu);
bool __wrap__ZN4absl7debian35Mutex7TryLockEv(absl::Mutex* mu) {
  const bool locked = __real__ZN4absl7debian35Mutex7TryLockEv(mu);
  if (locked) __tsan_acquire(mu);
  return locked;
}

void __real__ZN4absl7debian312Notification6NotifyEv(absl::Notification* notification);
void __wrap__ZN4absl7debian312Notification6NotifyEv(absl::Notification* notification) {
  __tsan_release(FlagOf(notification));
  __real__ZN4absl7debian312Notification6NotifyEv(notification);
}

void __real__ZNK4absl7debian312Notification19WaitForNotificationEv(
    const absl::Notification* notification);
void __wrap__ZNK4absl7debian312Notification19WaitForNotificationEv(
    const absl::Notification* notification) {
  __real__ZNK4absl7debian312Notification19WaitForNotificationEv(notification);
  __tsan_acquire(FlagOf(notification));
}

bool __real__ZNK4absl7debian312Notification30WaitForNotificationWithTimeoutENS0_8DurationE(
    const absl::Notification* notification, absl::Duration timeout);
bool __wrap__ZNK4absl7debian312Notification30WaitForNotificationWithTimeoutENS0_8DurationE(
    const absl::Notification* notification, absl::Duration timeout) {
  const bool notified =
      __real__ZNK4absl7debian312Notification30WaitForNotificationWithTimeoutENS0_8DurationE(
          notification, timeout);
  if (notified) __tsan_acquire(FlagOf(notification));
  return notified;
}

}  // extern "C"
