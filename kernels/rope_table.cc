#include "kernels/rope_table.h"

#include <cmath>
#include <cstddef>

namespace essor::kernels {

void FillRopeTable(std::span<const float> inverse_frequencies, float scale, uint32_t max_positions,
                   float* cos, float* sin) {
  const size_t width = inverse_frequencies.size();
  for (uint32_t position = 0; position < max_positions; ++position) {
    const size_t row = position * width;
    for (size_t i = 0; i < width; ++i) {
      const double angle = static_cast<double>(position) * inverse_frequencies[i];
      cos[row + i] = static_cast<float>(scale * std::cos(angle));
      sin[row + i] = static_cast<float>(scale * std::sin(angle));
    }
  }
}

}  // namespace essor::kernels
