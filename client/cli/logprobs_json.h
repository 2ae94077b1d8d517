// The most probable tokens as commands print them.
#pragma once

#include "client/cli/json_output.h"
#include "essor/v1/types.pb.h"

namespace essor::cli {

// Adds "top_ids" and "top_logprobs" to the object that is being written.
void PutTop(const v1::TokenLogprobs& logprobs, JsonOutput& json);

}  // namespace essor::cli
