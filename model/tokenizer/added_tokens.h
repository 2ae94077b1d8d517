// Finds added tokens in a text: leftmost first, the longest of those that begin at one place.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/tokenizer/scanner.h"
#include "model/tokenizer/tokenizer_definition.h"

namespace essor::model {

// Immutable; thread-safe.
class AddedTokenMatcher {
 public:
  static constexpr TokenId kText = UINT32_MAX;
  // Of one content; at each place of a text that many bytes may be compared.
  static constexpr size_t kContentBytesMax = 512;

  // A stretch of text, or (token != kText) an added token found there.
  struct Segment {
    Piece piece;
    TokenId token = kText;
  };

  // `tokens` with empty content are never found. The caller keeps kContentBytesMax.
  explicit AddedTokenMatcher(std::vector<AddedToken> tokens);

  // Appends the segments of `text`, in order. With parse_special false, or with one of `guards`
  // (ascending offsets) from its first byte to before its end, a special token found is left as
  // text, including what a shorter token would have matched inside it.
  void Split(std::string_view text, bool parse_special, std::span<const uint32_t> guards,
             std::vector<Segment>* segments) const;

 private:
  struct Node {
    std::vector<std::pair<uint8_t, uint32_t>> children;
    int32_t token = -1;  // index into tokens_
  };

  // From `position` on, the first place where a token may begin; the text's end when none can.
  size_t FirstCandidate(std::string_view text, size_t position) const;
  // The longest token at `position`, or -1.
  int32_t Longest(std::string_view text, size_t position) const;
  uint32_t Child(uint32_t node, uint8_t byte) const;  // 0 (the root): none

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_;
  std::array<uint32_t, 256> root_{};     // first byte -> node; 0: none
  std::optional<char> only_first_byte_;  // when all tokens begin with the same one
};

}  // namespace essor::model
