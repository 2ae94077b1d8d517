// Sizes of memory as people write and read them.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace essor::model {

// "80GB" (10^9), "80GiB" (2^30), "512MB", "1.5TB", "1000" or "1000B" (bytes); units in any case, a
// space before them allowed. InvalidArgument quoting the text for anything else, for zero, and
// above 2^60 bytes.
absl::StatusOr<uint64_t> ParseByteSize(const std::string& text);

// In the largest decimal unit below the value, one decimal: "79.8 GB", "512.0 kB", "17 B".
std::string FormatByteSize(uint64_t bytes);

}  // namespace essor::model
