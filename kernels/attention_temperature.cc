#include "kernels/attention_temperature.h"

#include <cmath>

namespace essor::kernels {

float AttentionTemperature::FactorAt(uint32_t position) const {
  const double floors = std::floor((static_cast<double>(position) + 1) / floor_positions);
  return static_cast<float>(1 + scale * std::log1p(floors));
}

}  // namespace essor::kernels
