#include "common/check.h"

#include <cstdio>
#include <cstdlib>

namespace essor::internal {

void CheckFailed(const char* file, int line, const char* fact) {
  std::fprintf(stderr, "%s:%d: check failed: %s\n", file, line, fact);
  std::abort();
}

}  // namespace essor::internal
