// Bodies of the OpenAI-compatible endpoints to the parameters of RequestService. Checks types and
// what only this API knows; ranges are checked by RequestService, once for both front ends.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/http/openai_choice.h"
#include "coordinator/http/openai_error.h"
#include "coordinator/service/request_service.h"

namespace essor::coordinator {

struct CompletionRequest {
  bool chat = false;
  std::vector<GenerateParams> prompts;  // one for chat
  uint32_t n = 1;                       // choices per prompt, as asked (checked later)
  bool stream = false;
  AnswerOptions answer;
  FieldNames names;
};

// POST /v1/completions and /v1/chat/completions. InvalidArgument names the top-level field. Unknown
// fields are ignored; fields whose effect is not implemented are refused when they ask for
// something.
absl::StatusOr<CompletionRequest> ParseCompletion(std::string_view body);
absl::StatusOr<CompletionRequest> ParseChatCompletion(std::string_view body);

struct TokenizeBody {
  std::string model;
  std::string prompt;
  bool add_special_tokens = true;
};
absl::StatusOr<TokenizeBody> ParseTokenize(std::string_view body);

struct DetokenizeBody {
  std::string model;
  std::vector<TokenId> tokens;
};
absl::StatusOr<DetokenizeBody> ParseDetokenize(std::string_view body);

}  // namespace essor::coordinator
