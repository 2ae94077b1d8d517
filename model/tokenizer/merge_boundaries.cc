#include "model/tokenizer/merge_boundaries.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "model/tokenizer/utf8.h"

namespace essor::model {
namespace {

bool IsContinuation(char byte) { return (static_cast<uint8_t>(byte) & 0xc0) == 0x80; }

// The length of the character that begins with `lead`.
size_t CharacterSize(char lead) {
  constexpr uint64_t kSizes = 0x4322111111111111u;  // by the lead's upper four bits
  return kSizes >> (4 * (static_cast<uint8_t>(lead) >> 4)) & 15;
}

// The lowest `bytes` (1 to 4) bytes of `value`.
uint32_t LowBytes(uint32_t value, size_t bytes) { return value & (UINT32_MAX >> (32 - 8 * bytes)); }

// The bytes at the end and at the beginning of a token that belong to one character.
std::string_view LastCharacter(std::string_view bytes) {
  size_t begin = bytes.size() - 1;
  while (begin > 0 && IsContinuation(bytes[begin])) --begin;
  return bytes.substr(begin);
}

std::string_view FirstCharacter(std::string_view bytes) {
  return bytes.substr(0, CharacterSize(bytes.front()));
}

uint32_t AsNumber(std::string_view bytes) {
  uint32_t value = 0;
  std::memcpy(&value, bytes.data(), std::min(bytes.size(), sizeof(value)));
  return value;
}

size_t PartialIndex(char before, char after) {
  return size_t{static_cast<uint8_t>(before)} << 8 | static_cast<uint8_t>(after);
}

}  // namespace

MergeBoundaries::MergeBoundaries(size_t merges) {
  // Many merges share their pair of characters: real vocabularies come to one pair for four to six
  // merges, so about every tenth bit is set.
  constexpr size_t kBitsMin = 4096;
  constexpr size_t kBitsMax = size_t{1} << 24;
  const size_t bits = std::bit_ceil(std::clamp(merges * 2, kBitsMin, kBitsMax));
  pairs_.resize(bits / 64);
  shift_ = 64 - std::countr_zero(bits);
}

inline MergeBoundaries::Character MergeBoundaries::Load(const char* data, const char* text_end) {
  Character result{.size = static_cast<uint32_t>(CharacterSize(*data))};
  if (text_end - data >= 4) {
    std::memcpy(&result.bytes, data, 4);
    result.bytes = LowBytes(result.bytes, result.size);
  } else {
    std::memcpy(&result.bytes, data, result.size);
  }
  return result;
}

inline uint64_t MergeBoundaries::PairHash(const Character& before, const Character& after) {
  // Fibonacci hashing: the product's high bits depend on all bits of both.
  return ((uint64_t{before.bytes} * 0x9e3779b1u) ^ after.bytes) * 0x9e3779b97f4a7c15u;
}

size_t MergeBoundaries::LeftWhole(const Character& before, const Character& after) {
  return PairHash(before, {after.bytes & 0xff, 1}) >> 48;
}

size_t MergeBoundaries::RightWhole(const Character& before, const Character& after) {
  return PairHash({before.bytes >> (8 * (before.size - 1)), 1}, after) >> 48;
}

void MergeBoundaries::Add(std::string_view left, std::string_view right, uint32_t rank,
                          RankOf rank_of) {
  if (IsContinuation(right.front())) return;  // inside a character
  const std::string_view before = LastCharacter(left);
  const std::string_view after = FirstCharacter(right);
  const bool whole_before = IsValidUtf8(before);
  const bool whole_after = IsValidUtf8(after);
  const Character first{AsNumber(before),
                        static_cast<uint32_t>(std::min<size_t>(before.size(), 4))};
  const Character second{AsNumber(after), static_cast<uint32_t>(after.size())};
  if (whole_before && whole_after && rank > rank_of(before) && rank > rank_of(after)) {
    const uint64_t bit = PairHash(first, second) >> shift_;
    pairs_[bit / 64] |= uint64_t{1} << (bit % 64);
    return;
  }
  const size_t bytes = PartialIndex(left.back(), right.front());
  partial_bytes_.set(bytes);
  if (whole_before) {
    one_partial_.set(LeftWhole(first, second));
  } else if (whole_after) {
    one_partial_.set(RightWhole(first, second));
  } else {
    both_partial_.set(bytes);
  }
}

MergeBoundaries::Part MergeBoundaries::FirstPart(std::string_view text,
                                                 const char* text_end) const {
  const uint64_t* const pairs = pairs_.data();
  const char* const end = text.data() + text.size();
  Character before = Load(text.data(), text_end);
  const char* next = text.data() + before.size;
  bool joins_characters = true;
  while (next < end) {
    const Character after = Load(next, text_end);
    const uint64_t bit = PairHash(before, after) >> shift_;
    const bool whole = (pairs[bit / 64] >> (bit % 64) & 1) != 0;
    const size_t bytes = PartialIndex(next[-1], *next);
    const bool partial =
        partial_bytes_[bytes] && (one_partial_[LeftWhole(before, after)] ||
                                  one_partial_[RightWhole(before, after)] || both_partial_[bytes]);
    if (!whole && !partial) break;
    joins_characters &= !partial;
    before = after;
    next += after.size;
  }
  return {static_cast<size_t>(next - text.data()), joins_characters};
}

}  // namespace essor::model
