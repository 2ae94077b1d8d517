// The sum of an all-reduce.
#pragma once

#include <cstddef>
#include <span>

namespace essor::worker {

// out[i] = ((sources[0][i] + sources[1][i]) + sources[2][i]) + ... for i in [0, count): always in
// the order of `sources`, so that the bits depend on nothing else. Each source holds `count`
// floats; `out` may be one of them, otherwise it must not overlap any.
void SumInOrder(std::span<const float* const> sources, size_t count, float* out);

}  // namespace essor::worker
