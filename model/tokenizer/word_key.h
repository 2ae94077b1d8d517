// Pieces of text as keys of hash tables.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace essor::model {

// Drawn at random when the process starts, so that no vocabulary can be written for collisions.
// Hashes of one process mean nothing to another, and nothing before main().
extern const std::array<uint64_t, 2> kHashSeeds;

// Multiply-and-fold of two words.
uint64_t MixHash(uint64_t a, uint64_t b);

// A piece as a fixed-size key: its bytes when there are at most 15 (the last byte holds the
// length), otherwise two hashes and an owner who compares the bytes.
struct WordKey {
  static constexpr size_t kInlineBytes = 15;

  uint64_t low = 0;
  uint64_t high = 0;

  // `text_end` is the end of the text that `word` lies in: up to there it is safe to read.
  static WordKey Of(std::string_view word, const char* text_end);
  bool is_inline() const { return (high >> 56) <= kInlineBytes; }
  uint64_t Hash() const;
  // Without a branch between the two halves.
  bool operator==(const WordKey& other) const {
    return ((low ^ other.low) | (high ^ other.high)) == 0;
  }

 private:
  static WordKey OfLong(std::string_view word);
  static WordKey OfLast(std::string_view word);  // less than 16 bytes may be read
};

inline uint64_t MixHash(uint64_t a, uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  a ^= kHashSeeds[0];
  b ^= kHashSeeds[1];
  const Wide product = static_cast<Wide>(a) * b;
  // A factor of 0 makes the product 0 whatever the other is: the sum keeps both.
  return (static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64)) + a + b;
}

inline uint64_t WordKey::Hash() const { return MixHash(low, high); }

inline WordKey WordKey::Of(std::string_view word, const char* text_end) {
  const size_t size = word.size();
  if (size > kInlineBytes) return OfLong(word);
  if (text_end - word.data() < 16) return OfLast(word);
  WordKey key;
  __builtin_memcpy(&key.low, word.data(), 8);
  __builtin_memcpy(&key.high, word.data() + 8, 8);
  // The lowest `bytes` bytes; 8 of them and more are all.
  const auto mask = [](size_t bytes) {
    return bytes >= 8 ? ~uint64_t{0} : (uint64_t{1} << (8 * bytes)) - 1;
  };
  key.low &= mask(size);
  key.high &= size > 8 ? mask(size - 8) : 0;
  key.high |= uint64_t{size} << 56;
  return key;
}

}  // namespace essor::model
