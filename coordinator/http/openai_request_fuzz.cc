// Bodies of every endpoint: whatever the bytes, the answer is a request or a status.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "coordinator/http/openai_error.h"
#include "coordinator/http/openai_request.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace essor::coordinator;  // NOLINT
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  const auto completion = ParseCompletion(body);
  if (!completion.ok()) ErrorReply(completion.status());
  const auto chat = ParseChatCompletion(body);
  if (!chat.ok()) ErrorReply(chat.status());
  (void)ParseTokenize(body);
  (void)ParseDetokenize(body);
  return 0;
}
