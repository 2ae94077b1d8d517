// Seeds of the continuations of one prompt.
#pragma once

#include <cstdint>

namespace essor::coordinator {

// Continuation 0 has the request's own seed, so that n = 1 equals the first of many; the others get
// seeds by the splitmix64 finaliser (https://prng.di.unimi.it/splitmix64.c), which sends distinct
// inputs to distinct outputs.
inline uint64_t ContinuationSeed(uint64_t seed, uint32_t index) {
  if (index == 0) return seed;
  uint64_t mixed = seed + index * 0x9e3779b97f4a7c15ull;
  mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9ull;
  mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebull;
  return mixed ^ (mixed >> 31);
}

}  // namespace essor::coordinator
