// Cutting of long texts before anything else happens to them.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "model/tokenizer/tokenizer_definition.h"

namespace essor::model {

// The ends of the chunks of `text` (valid UTF-8, under 4 GiB): every ChunkLimits::characters_max
// characters, and before a character that would make a run of white space, or of anything else,
// longer than ChunkLimits::run_max in its chunk. The last one is text.size(); none for an empty
// text.
std::vector<uint32_t> ChunkEnds(std::string_view text, const ChunkLimits& limits);

}  // namespace essor::model
