#include "model/chat/prompt_encoding.h"

#include <string>

#include "absl/status/status.h"
#include "model/tokenizer/guards.h"

namespace essor::model {

absl::StatusOr<std::vector<TokenId>> EncodeChat(const ChatTemplate& chat_template,
                                                const Tokenizer& tokenizer,
                                                const ChatInput& input) {
  std::vector<std::string> special_texts;
  for (const TokenId id : tokenizer.special_tokens()) {
    special_texts.emplace_back(tokenizer.TokenBytes(id));
  }
  ChatInput guarded = input;
  for (std::string* json : {&guarded.messages_json, &guarded.tools_json, &guarded.kwargs_json}) {
    *json = GuardSpecialTokens(*json, special_texts);
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
