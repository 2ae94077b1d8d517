// Chat templates: the Jinja subset that Hugging Face models use, rendered as transformers renders
// it (trim_blocks and lstrip_blocks on, loop controls, `generation` tag, tojson without HTML
// escaping).
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace essor::model {

struct ChatInput {
  std::string messages_json;  // array of objects with at least "role"
  std::string tools_json;     // array, or empty for none
  bool add_generation_prompt = true;
  std::string kwargs_json;             // object of further variables, or empty
  absl::Time now = absl::UnixEpoch();  // what strftime_now() sees, in UTC
};

// A parsed template. Immutable; thread-safe.
class ChatTemplate {
 public:
  // The special tokens a template may name.
  struct Tokens {
    std::string bos_token;
    std::string eos_token;
    std::string pad_token;
    std::string unk_token;
  };

  // InvalidArgument with line number for a syntax error or a construct outside the subset.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Parse(std::string_view source,
                                                             Tokens tokens);
  virtual ~ChatTemplate() = default;

  // InvalidArgument: malformed JSON input, raise_exception() of the template (its message is the
  // status message), a type error, or a limit passed (steps, recursion depth, output bytes).
  virtual absl::StatusOr<std::string> Render(const ChatInput& input) const = 0;
};

// Special-token text inside user messages must stay text although the rendered prompt is encoded
// with parse_special. GuardSpecialTokens() breaks every occurrence of one of `special_texts` inside
// the string values of a JSON document with the noncharacter U+FDD0 (RemoveGuards in the encoder
// drops it again, see EncodeRenderedPrompt in model/chat/prompt_encoding.h).
std::string GuardSpecialTokens(std::string_view json,
                               const std::vector<std::string>& special_texts);

}  // namespace essor::model
