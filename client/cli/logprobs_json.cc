#include "client/cli/logprobs_json.h"

#include <span>

namespace essor::cli {

void PutTop(const v1::TokenLogprobs& logprobs, JsonOutput& json) {
  json.Field("top_ids",
             std::span(logprobs.top_ids().data(), static_cast<size_t>(logprobs.top_ids_size())));
  json.Field("top_logprobs", std::span(logprobs.top_logprobs().data(),
                                       static_cast<size_t>(logprobs.top_logprobs_size())));
}

}  // namespace essor::cli
