// ESSOR_CHECK(condition) aborts with file, line and the violated fact. For our own bugs only, never
// for input: what a file, a peer or a user can cause is an absl::Status.
#pragma once

namespace essor::internal {
// Prints "file:line: check failed: fact" to stderr and aborts.
[[noreturn]] void CheckFailed(const char* file, int line, const char* fact);
}  // namespace essor::internal

#define ESSOR_CHECK(condition)                                        \
  do {                                                                \
    if (!(condition)) [[unlikely]]                                    \
      ::essor::internal::CheckFailed(__FILE__, __LINE__, #condition); \
  } while (false)
