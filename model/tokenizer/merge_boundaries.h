// Between which characters a merge can happen at all. Byte-pair encoding of a text that is cut
// where none can is the encoding of its parts, one after the other: the merges on either side do
// not see each other. Texts in scripts without blanks consist of long pieces, and their parts,
// unlike the pieces, occur again and again.
#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"

namespace essor::model {

// Thread-compatible; const calls are thread-safe.
class MergeBoundaries {
 public:
  // A prefix of a text whose end no merge can cross.
  struct Part {
    size_t size = 0;
    // Whatever merges happen in it over the boundary of two characters join tokens that hold both
    // characters whole, with a rank above those that made them whole: the characters may as well
    // be merged first, each by itself.
    bool joins_characters = true;
  };
  // The last rank that a character needs to become one token; 0 for those that do not become one,
  // and for single bytes.
  using RankOf = absl::FunctionRef<uint32_t(std::string_view character)>;

  // For about `merges` merges.
  explicit MergeBoundaries(size_t merges);

  // Takes note of a merge of the tokens with these bytes, neither of them empty.
  void Add(std::string_view left, std::string_view right, uint32_t rank, RankOf rank_of);

  // The first part of `text`, which is not empty, is valid UTF-8 and lies in a text that ends at
  // `text_end`. Some of the cuts that would be right are missed, since pairs of characters are only
  // remembered by a hash.
  Part FirstPart(std::string_view text, const char* text_end) const;

 private:
  struct Character {
    uint32_t bytes = 0;  // the first one lowest
    uint32_t size = 0;
  };

  static Character Load(const char* data, const char* text_end);
  static uint64_t PairHash(const Character& before, const Character& after);
  // The places in one_partial_ of the pair with one side as a whole and a byte of the other one.
  static size_t LeftWhole(const Character& before, const Character& after);
  static size_t RightWhole(const Character& before, const Character& after);

  std::vector<uint64_t> pairs_;  // bits by PairHash
  int shift_ = 0;                // of a hash, to the bit's number
  // Merges that do not wait until both characters are whole. By the last byte on the left and the
  // first on the right: whether there are any, and whether both sides are parts of characters.
  std::bitset<65536> partial_bytes_;
  std::bitset<65536> both_partial_;
  // By the hashes of the whole character on one side and of the one byte on the other.
  std::bitset<65536> one_partial_;
};

}  // namespace essor::model
