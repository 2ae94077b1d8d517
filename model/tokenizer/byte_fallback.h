// The tokens that SentencePiece vocabularies have for single bytes: "<0x00>" to "<0xFF>".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace essor::model {

// "<0x0A>" for 10.
std::string FallbackToken(uint8_t byte);

// The byte that `text` stands for; digits of either case, as decoders take them.
std::optional<uint8_t> ByteOfFallbackToken(std::string_view text);

}  // namespace essor::model
