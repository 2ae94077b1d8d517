#include "client/convert/seeded_noise.h"

namespace essor::client {
namespace {

// SplitMix64's finaliser (Steele, Lea, Flood: Fast splittable pseudorandom number generators).
uint64_t Mix(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9u;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

constexpr uint64_t kGolden = 0x9e3779b97f4a7c15u;

uint32_t SumOfWords(uint64_t bits) {
  return static_cast<uint32_t>((bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) +
                               (bits >> 48));
}

}  // namespace

SeededNoise::SeededNoise(uint64_t seed, const std::string& name) {
  uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  key_ = Mix(hash ^ Mix(seed + kGolden));
}

float SeededNoise::Normal(uint64_t index) const {
  uint32_t sum = 0;
  for (uint64_t i = 0; i < 3; ++i) sum += SumOfWords(Mix(key_ + kGolden * (3 * index + i + 1)));
  return static_cast<float>(static_cast<int32_t>(sum) - 6 * 65535) * 0x1p-16f;
}

}  // namespace essor::client
