// The cosines and sines that QkNormRope reads. The frequencies come from the model's configuration;
// this knows only angles.
#pragma once

#include <cstdint>
#include <span>

namespace essor::kernels {

// cos[p * n + i] = scale * cos(p * inverse_frequencies[i]), sin likewise, for p in
// [0, max_positions) and n = inverse_frequencies.size(); the angle in double. `scale` is the
// attention factor of YaRN and similar, 1 otherwise.
void FillRopeTable(std::span<const float> inverse_frequencies, float scale, uint32_t max_positions,
                   float* cos, float* sin);

}  // namespace essor::kernels
