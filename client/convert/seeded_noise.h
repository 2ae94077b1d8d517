// Random numbers that are a function of (seed, name, index): any part of a tensor can be made on
// its own, and the same on every machine (integer arithmetic only).
#pragma once

#include <cstdint>
#include <string>

namespace essor::client {

// One stream of normal deviates, for one tensor. Immutable; thread-safe.
class SeededNoise {
 public:
  SeededNoise(uint64_t seed, const std::string& name);

  // Mean 0, variance 1: the sum of 12 uniforms (Irwin-Hall), so within +-6; no libm function whose
  // last digit could differ between machines.
  float Normal(uint64_t index) const;

 private:
  uint64_t key_;
};

}  // namespace essor::client
