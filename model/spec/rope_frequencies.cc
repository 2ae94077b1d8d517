#include "model/spec/rope_frequencies.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <variant>

namespace essor::model {
namespace {

// Llama 3.1: long wavelengths are stretched by `factor`, short ones kept, those between blended.
double ScaleLlama3(double frequency, const RopeSpec::Llama3Scaling& scaling) {
  const double wavelength = 2 * std::numbers::pi / frequency;
  const double low_wavelength = scaling.original_max_position / scaling.low_freq_factor;
  const double high_wavelength = scaling.original_max_position / scaling.high_freq_factor;
  if (wavelength < high_wavelength) return frequency;
  if (wavelength > low_wavelength) return frequency / scaling.factor;
  const double range = scaling.high_freq_factor - scaling.low_freq_factor;
  // Only reached with range 0 when the wavelength hits both bounds at once: then nothing changes.
  const double keep =
      range == 0 ? 1.0
                 : (scaling.original_max_position / wavelength - scaling.low_freq_factor) / range;
  return (1 - keep) * frequency / scaling.factor + keep * frequency;
}

// YaRN: the pair (as a real number) that makes `rotations` turns over the original context.
double YarnPair(double rotations, const RopeSpec& rope, const RopeSpec::YarnScaling& scaling) {
  return rope.rotary_dim *
         std::log(scaling.original_max_position / (rotations * 2 * std::numbers::pi)) /
         (2 * std::log(rope.theta));
}

// YaRN: pairs below `low` keep their frequency, pairs above `high` are interpolated.
struct YarnRange {
  double low;
  double high;
};

YarnRange YarnRangeOf(const RopeSpec& rope, const RopeSpec::YarnScaling& scaling) {
  double low = YarnPair(scaling.beta_fast, rope, scaling);
  double high = YarnPair(scaling.beta_slow, rope, scaling);
  if (scaling.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, rope.rotary_dim - 1.0);
  if (low == high) high += 0.001;  // no division by zero, as in the original
  return {low, high};
}

}  // namespace

RopeFrequencies FrequenciesOf(const RopeSpec& rope) {
  RopeFrequencies result;
  const auto* linear = std::get_if<RopeSpec::LinearScaling>(&rope.scaling);
  const auto* llama3 = std::get_if<RopeSpec::Llama3Scaling>(&rope.scaling);
  const auto* yarn = std::get_if<RopeSpec::YarnScaling>(&rope.scaling);
  YarnRange range{};
  if (yarn != nullptr) {
    range = YarnRangeOf(rope, *yarn);
    result.attention_factor = static_cast<float>(yarn->attention_factor);
  }
  const uint32_t pairs = rope.rotary_dim / 2;
  result.inverse_frequencies.reserve(pairs);
  for (uint32_t i = 0; i < pairs; ++i) {
    double frequency = std::pow(rope.theta, -2.0 * i / rope.rotary_dim);
    if (linear != nullptr) frequency /= linear->factor;
    if (llama3 != nullptr) frequency = ScaleLlama3(frequency, *llama3);
    if (yarn != nullptr) {
      const double ramp = std::clamp((i - range.low) / (range.high - range.low), 0.0, 1.0);
      frequency = frequency / yarn->factor * ramp + frequency * (1 - ramp);
    }
    result.inverse_frequencies.push_back(static_cast<float>(frequency));
  }
  return result;
}

}  // namespace essor::model
