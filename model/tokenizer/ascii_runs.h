// How far runs of ASCII characters of one kind reach, eight bytes at a time: a run of any length up
// to 16 takes the same instructions, where a loop over bytes would mispredict its end.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace essor::model::ascii {

inline constexpr uint64_t kHighBits = 0x8080808080808080u;

constexpr uint64_t Repeat(uint8_t byte) { return 0x0101010101010101u * byte; }

// The high bit of each byte of `word` that is ASCII and lies in [first, last].
constexpr uint64_t InRange(uint64_t word, uint8_t first, uint8_t last) {
  const uint64_t low = word & ~kHighBits;
  const uint64_t from_first = low + Repeat(static_cast<uint8_t>(0x80 - first));
  const uint64_t behind_last = low + Repeat(static_cast<uint8_t>(0x7f - last));
  return from_first & ~behind_last & ~word & kHighBits;
}

struct Letters {
  static constexpr uint64_t In(uint64_t word) { return InRange(word | Repeat(0x20), 'a', 'z'); }
};
struct LowerLetters {
  static constexpr uint64_t In(uint64_t word) { return InRange(word, 'a', 'z'); }
};
struct Blanks {
  static constexpr uint64_t In(uint64_t word) { return InRange(word, ' ', ' '); }
};
struct All {
  static constexpr uint64_t In(uint64_t word) { return ~word & kHighBits; }
};

// The bytes before the first one that is not of the kind, of the eight in `word`.
template <typename Kind>
size_t RunIn(uint64_t word) {
  const uint64_t others = Kind::In(word) ^ kHighBits;
  static_assert(std::endian::native == std::endian::little);
  return others == 0 ? 8 : static_cast<size_t>(std::countr_zero(others)) / 8;
}

// The end of the run of the kind that begins at `position`; `position` itself when there is none.
template <typename Kind>
size_t SkipRun(std::string_view text, size_t position) {
  const auto load = [text](size_t at) {
    uint64_t word;
    std::memcpy(&word, text.data() + at, sizeof(word));
    return word;
  };
  while (position + 16 <= text.size()) {
    const size_t first = RunIn<Kind>(load(position));
    const size_t second = RunIn<Kind>(load(position + 8));
    const size_t run = first == 8 ? 8 + second : first;
    position += run;
    if (run < 16) return position;
  }
  while (position < text.size() && Kind::In(static_cast<uint8_t>(text[position])) >> 7 & 1) {
    ++position;
  }
  return position;
}

}  // namespace essor::model::ascii
