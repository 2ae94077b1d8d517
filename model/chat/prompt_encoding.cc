#include "model/chat/prompt_encoding.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "model/chat/guard_special_tokens.h"
#include "model/tokenizer/guards.h"

namespace essor::model {

absl::StatusOr<std::vector<TokenId>> EncodeChat(const ChatTemplate& chat_template,
                                                const Tokenizer& tokenizer,
                                                const ChatInput& input) {
  std::vector<std::string> special_texts;
  for (const TokenId id : tokenizer.special_tokens()) {
    special_texts.emplace_back(tokenizer.TokenBytes(id));
  }
  SpecialTokenGuard guard(std::move(special_texts));
  ChatInput guarded = input;
  guarded.guard = &guard;
  for (std::string* json : {&guarded.messages_json, &guarded.tools_json, &guarded.kwargs_json}) {
    *json = guard.GuardStrings(*json);
  }
  const absl::StatusOr<std::string> prompt = chat_template.Render(guarded);
  if (!prompt.ok()) {
    // The template's own messages may quote what the user wrote.
    return absl::Status(prompt.status().code(),
                        RemoveGuards(std::string(prompt.status().message())).text);
  }
  return tokenizer.Encode(*prompt, {.add_special = false, .parse_special = true, .guarded = true});
}

}  // namespace essor::model
