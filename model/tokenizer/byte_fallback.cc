#include "model/tokenizer/byte_fallback.h"

#include <algorithm>

namespace essor::model {
namespace {

// 16 for what is no hexadecimal digit.
unsigned HexDigit(char c) {
  if (c >= '0' && c <= '9') return static_cast<unsigned>(c - '0');
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? static_cast<unsigned>(lower - 'a') + 10 : 16;
}

}  // namespace

std::string FallbackToken(uint8_t byte) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  return {'<', '0', 'x', kDigits[byte >> 4], kDigits[byte & 15], '>'};
}

std::optional<uint8_t> ByteOfFallbackToken(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return std::nullopt;
  const unsigned high = HexDigit(text[3]);
  const unsigned low = HexDigit(text[4]);
  if (high > 15 || low > 15) return std::nullopt;
  return static_cast<uint8_t>(high * 16 + low);
}

void ByteTokens::Add(std::string_view text, TokenId id) {
  const std::optional<uint8_t> byte = ByteOfFallbackToken(text);
  if (byte.has_value() && text == FallbackToken(*byte)) tokens_[*byte] = id;
}

bool ByteTokens::Append(std::string_view text, std::vector<TokenId>* ids) const {
  const auto token = [this](char byte) { return tokens_[static_cast<uint8_t>(byte)]; };
  if (std::any_of(text.begin(), text.end(), [&](char byte) { return token(byte) == kNone; })) {
    return false;
  }
  for (const char byte : text) ids->push_back(token(byte));
  return true;
}

}  // namespace essor::model
