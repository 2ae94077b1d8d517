// Changes to a Hugging Face config.json that keep everything else in it.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "client/convert/convert.h"

namespace essor::client {

// States the element type under whichever of "dtype" and "torch_dtype" the config uses.
// InvalidArgument when `config` is not a JSON object (both functions).
absl::StatusOr<std::string> SetConfigType(const std::string& config, ConvertType type);

// llama becomes mixtral, qwen3 becomes qwen3_moe, with normalised top-k weights. InvalidArgument
// naming the family for any other, and for experts or top_k out of range.
absl::StatusOr<std::string> UpcycleConfig(const std::string& config, const Upcycle& upcycle);

}  // namespace essor::client
