// UTF-8 decoding shared by the tokenizer, the detokenizer and the chat templates.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace essor::model {

struct CodePoint {
  char32_t value = 0;
  uint32_t size = 0;  // bytes
};

bool IsValidUtf8(std::string_view text);

// The code point at text[position]. `text` must be valid UTF-8 and `position` a character's first
// byte.
inline CodePoint DecodeUtf8(const char* text) {
  const auto byte = [text](int i) { return static_cast<char32_t>(static_cast<uint8_t>(text[i])); };
  const char32_t first = byte(0);
  if (first < 0x80) return {first, 1};
  if (first < 0xe0) return {((first & 0x1f) << 6) | (byte(1) & 0x3f), 2};
  if (first < 0xf0) {
    return {((first & 0x0f) << 12) | ((byte(1) & 0x3f) << 6) | (byte(2) & 0x3f), 3};
  }
  return {((first & 0x07) << 18) | ((byte(1) & 0x3f) << 12) | ((byte(2) & 0x3f) << 6) |
              (byte(3) & 0x3f),
          4};
}

void AppendUtf8(char32_t code_point, std::string* out);

// Number of code points of valid UTF-8.
size_t CountCodePoints(std::string_view text);

// Appends `bytes` to `out`, each maximal ill-formed part as one U+FFFD (the Unicode Standard's
// recommended practice, section 3.9), and returns how many bytes were consumed. Without `final`, an
// unfinished but so far valid sequence at the end (at most 3 bytes) is left unconsumed; with it, it
// becomes U+FFFD.
size_t AppendLossyUtf8(std::string_view bytes, bool final, std::string* out);

}  // namespace essor::model
