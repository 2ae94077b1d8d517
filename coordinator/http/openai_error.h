// Errors as OpenAI's clients expect them: {"error":{message,type,param,code}} with the status and
// headers that make them retry or not.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace essor::coordinator {

// An answer that is written at once.
struct HttpReply {
  unsigned status = 200;
  std::string content_type = "application/json";
  std::string body{};
  std::vector<std::pair<std::string, std::string>> headers{};
};

// The JSON field, or header, that a proto field of RequestService is called here, where it is not
// the last part of the proto path.
struct FieldNames {
  std::string prompt = "prompt";          // text, tokens.ids, chat, input
  std::string max_tokens = "max_tokens";  // sampling.max_new_tokens
  std::string logprobs = "logprobs";
};

// The names above. A reference and not a temporary as default argument: g++ 12 destroys aggregate
// temporaries in coroutines twice.
const FieldNames& DefaultFieldNames();

HttpReply ErrorReply(const absl::Status& status, const FieldNames& names = DefaultFieldNames());
// Only the body, for an error inside a stream.
std::string ErrorBody(const absl::Status& status, const FieldNames& names = DefaultFieldNames());
// For errors that have no absl code: 404, 405, 408, 413, 415, 431.
HttpReply ProtocolErrorReply(unsigned status, const std::string& message);

}  // namespace essor::coordinator
