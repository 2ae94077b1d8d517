// The alphabet of byte-level BPE: each byte is written as one printable character in vocabulary
// files (GPT-2, https://github.com/openai/gpt-2, bytes_to_unicode): the printable Latin-1
// characters stand for themselves, the other 68 bytes for U+0100 + n in ascending order.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace essor::model {

// The character for `byte`.
char32_t ByteLevelCharacter(uint8_t byte);

// Appends the bytes that `text` (valid UTF-8) spells to `bytes`. False, with nothing appended, when
// a character is not in the alphabet.
bool ByteLevelDecode(std::string_view text, std::string* bytes);

}  // namespace essor::model
