// Chat templates as untrusted input: parsing and rendering end, within their limits, in text or in
// InvalidArgument. The input is the template, optionally followed by a zero byte and the messages.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "common/check.h"
#include "model/chat/chat_template.h"
#include "model/chat/guard_special_tokens.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t end = input.find('\0');
  const auto parsed = essor::model::ChatTemplate::Parse(input.substr(0, end), {.bos_token = "<s>"});
  if (!parsed.ok()) {
    ESSOR_CHECK(parsed.status().code() == absl::StatusCode::kInvalidArgument);
    return 0;
  }
  essor::model::ChatInput chat;
  chat.messages_json = R"([{"role": "user", "content": "Hi"}, {"role": "tool", "content": null}])";
  if (end != std::string_view::npos) chat.messages_json = std::string(input.substr(end + 1));
  chat.messages_json =
      essor::model::SpecialTokenGuard({"<s>", "<|end|>"}).GuardStrings(chat.messages_json);
  const auto text = (*parsed)->Render(chat);
  if (!text.ok()) ESSOR_CHECK(text.status().code() == absl::StatusCode::kInvalidArgument);
  return 0;
}
