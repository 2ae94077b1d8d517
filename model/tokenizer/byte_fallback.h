// The tokens that SentencePiece vocabularies have for single bytes: "<0x00>" to "<0xFF>".
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/ids.h"

namespace essor::model {

// "<0x0A>" for 10.
std::string FallbackToken(uint8_t byte);

// The byte that `text` stands for; digits of either case, as decoders take them.
std::optional<uint8_t> ByteOfFallbackToken(std::string_view text);

// The tokens of a vocabulary that stand for single bytes.
class ByteTokens {
 public:
  ByteTokens() { tokens_.fill(kNone); }
  // Takes the token if its text is what FallbackToken() writes.
  void Add(std::string_view text, TokenId id);
  // Appends a token for each byte of `text`; false, and nothing, unless there is one for each.
  bool Append(std::string_view text, std::vector<TokenId>* ids) const;

 private:
  static constexpr TokenId kNone = UINT32_MAX;
  std::array<TokenId, 256> tokens_;
};

}  // namespace essor::model
