#include "worker/parallel/ordered_sum.h"

#include <algorithm>
#include <cstring>

namespace essor::worker {
namespace {

// Small enough to stay in the first-level cache beside the sources' lines.
constexpr size_t kBlockFloats = 1024;

}  // namespace

void SumInOrder(std::span<const float* const> sources, size_t count, float* out) {
  // A local sum, because `out` may be a source that is still to be added.
  alignas(64) float sum[kBlockFloats];
  for (size_t begin = 0; begin < count; begin += kBlockFloats) {
    const size_t block = std::min(kBlockFloats, count - begin);
    const float* const first = sources[0] + begin;
    if (sources.size() == 1) {
      std::memcpy(sum, first, block * sizeof(float));
    } else {
      const float* const second = sources[1] + begin;
      for (size_t i = 0; i < block; ++i) sum[i] = first[i] + second[i];
    }
    for (size_t source = 2; source < sources.size(); ++source) {
      const float* const added = sources[source] + begin;
      for (size_t i = 0; i < block; ++i) sum[i] += added[i];
    }
    std::memcpy(out + begin, sum, block * sizeof(float));
  }
}

}  // namespace essor::worker
