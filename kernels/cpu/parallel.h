// How CPU operations divide their rows, columns or blocks among the threads of a pool.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/thread_pool.h"

namespace essor::kernels {

struct IndexRange {
  uint64_t begin;
  uint64_t end;
};

// Part `part` of `num_parts` of [0, count): contiguous, ascending, sizes that differ by at most one
// granule; every boundary but the last a multiple of `granule`. Parts may be empty.
inline IndexRange SplitRange(uint64_t count, uint32_t num_parts, uint32_t part,
                             uint64_t granule = 1) {
  const uint64_t granules = (count + granule - 1) / granule;
  const uint64_t base = granules / num_parts;
  const uint64_t extra = granules % num_parts;  // the first `extra` parts have one more
  const uint64_t begin = part * base + std::min<uint64_t>(part, extra);
  const uint64_t end = begin + base + (part < extra ? 1 : 0);
  return {std::min(begin * granule, count), std::min(end * granule, count)};
}

// Calls body(begin, end) on parts that together are [0, count), on all members when the work is
// worth a fork, else once on the caller. `count_for_fork` is the count from which it is.
template <typename Body>
void ParallelRange(ThreadPool& pool, uint64_t count, uint64_t count_for_fork, const Body& body) {
  const uint32_t num_threads = pool.num_threads();
  if (count == 0) return;
  if (num_threads == 1 || count < count_for_fork) {
    body(uint64_t{0}, count);
    return;
  }
  pool.Run([&](uint32_t thread) {
    const IndexRange range = SplitRange(count, num_threads, thread);
    if (range.begin < range.end) body(range.begin, range.end);
  });
}

}  // namespace essor::kernels
