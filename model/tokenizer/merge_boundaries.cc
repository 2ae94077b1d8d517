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
  const auto byte = static_cast<uint8_t>(lead);
  if (byte < 0xc0) return 1;
  if (byte < 0xe0) return 2;
  return byte < 0xf0 ? 3 : 4;
}

// A character's bytes as a number.
uint32_t LoadCharacter(const char* data, size_t size, const char* text_end) {
  uint32_t value = 0;
  if (text_end - data >= 4) {
    std::memcpy(&value, data, 4);
    return value & (UINT32_MAX >> (32 - 8 * size));
  }
  std::memcpy(&value, data, size);
  return value;
}

// The whole characters at the end and at the beginning of `bytes`; empty where there is only a part
// of one.
std::string_view LastCharacter(std::string_view bytes) {
  size_t begin = bytes.size() - 1;
  while (begin > 0 && IsContinuation(bytes[begin])) --begin;
  const std::string_view last = bytes.substr(begin);
  return IsValidUtf8(last) ? last : std::string_view();
}

std::string_view FirstCharacter(std::string_view bytes) {
  const std::string_view first = bytes.substr(0, CharacterSize(bytes.front()));
  return IsValidUtf8(first) ? first : std::string_view();
}

uint32_t AsNumber(std::string_view character) {
  return LoadCharacter(character.data(), character.size(), character.data() + character.size());
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

uint64_t MergeBoundaries::PairHash(uint32_t before, uint32_t after) {
  // Fibonacci hashing: the product's high bits depend on all bits of both.
  return ((uint64_t{before} * 0x9e3779b1u) ^ after) * 0x9e3779b97f4a7c15u;
}

void MergeBoundaries::Add(std::string_view left, std::string_view right, uint32_t rank,
                          RankOf rank_of) {
  if (IsContinuation(right.front())) return;  // inside a character
  const std::string_view before = LastCharacter(left);
  const std::string_view after = FirstCharacter(right);
  if (before.empty() || after.empty() || rank <= rank_of(before) || rank <= rank_of(after)) {
    partial_.set(PartialIndex(left.back(), right.front()));
    return;
  }
  const uint64_t bit = PairHash(AsNumber(before), AsNumber(after)) >> shift_;
  pairs_[bit / 64] |= uint64_t{1} << (bit % 64);
}

MergeBoundaries::Part MergeBoundaries::FirstPart(std::string_view text,
                                                 const char* text_end) const {
  Part part{.size = CharacterSize(text.front())};
  uint32_t before = LoadCharacter(text.data(), part.size, text_end);
  while (part.size < text.size()) {
    const char first = text[part.size];
    const size_t size = CharacterSize(first);
    const uint32_t after = LoadCharacter(text.data() + part.size, size, text_end);
    const uint64_t bit = PairHash(before, after) >> shift_;
    const bool joined = (pairs_[bit / 64] >> (bit % 64) & 1) != 0;
    const bool partial = partial_[PartialIndex(text[part.size - 1], first)];
    if (!joined && !partial) return part;
    part.joins_characters &= !partial;
    before = after;
    part.size += size;
  }
  return part;
}

}  // namespace essor::model
