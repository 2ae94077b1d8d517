#include "model/tokenizer/word_key.h"

#include <algorithm>
#include <cstring>
#include <random>

namespace essor::model {
namespace {

uint64_t LoadBytes(const char* data, size_t size) {
  uint64_t value = 0;
  std::memcpy(&value, data, size);
  return value;
}

uint64_t HashBytes(std::string_view bytes, uint64_t seed) {
  uint64_t hash = MixHash(seed, bytes.size());
  while (bytes.size() > 8) {
    hash = MixHash(hash, LoadBytes(bytes.data(), 8));
    bytes.remove_prefix(8);
  }
  return MixHash(hash, LoadBytes(bytes.data(), bytes.size()));
}

std::array<uint64_t, 2> DrawSeeds() {
  std::random_device device;
  std::uniform_int_distribution<uint64_t> any;
  return {any(device), any(device)};
}

}  // namespace

const std::array<uint64_t, 2> kHashSeeds = DrawSeeds();

WordKey WordKey::OfLong(std::string_view word) {
  WordKey key;
  key.low = HashBytes(word, 1);
  key.high = HashBytes(word, 2) | (uint64_t{0xff} << 56);
  return key;
}

WordKey WordKey::OfLast(std::string_view word) {
  const size_t size = word.size();
  WordKey key;
  key.low = LoadBytes(word.data(), std::min<size_t>(size, 8));
  if (size > 8) key.high = LoadBytes(word.data() + 8, size - 8);
  key.high |= uint64_t{size} << 56;
  return key;
}

}  // namespace essor::model
