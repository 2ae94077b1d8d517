// Chat templates: the Jinja subset that Hugging Face models use, rendered as transformers renders
// it (trim_blocks and lstrip_blocks on, loop controls, `generation` tag, tojson without HTML
// escaping).
//
// Differences from Jinja, none of which a published template was seen to need: generators are
// evaluated at once and can be walked twice; integers beyond 64 bits print but do not calculate; no
// block, extends, include, import, do, autoescape and trans tags.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace essor::model {

// Limits. Rendering also has a budget of evaluated nodes and of text handled, which grows with the
// input (chat_template.cc).
inline constexpr size_t kTemplateBytesMax = size_t{1} << 20;
inline constexpr size_t kRenderedBytesMax = size_t{64} << 20;
// Nested expressions, blocks and macro calls; some 100 recursive macro calls.
inline constexpr int kRenderDepthMax = 1000;

class SpecialTokenGuard;

struct ChatInput {
  std::string messages_json = {};  // array of objects with at least "role"
  std::string tools_json = {};     // array, or empty for none
  bool add_generation_prompt = true;
  // Object of further variables, or empty. It may replace add_generation_prompt and the tokens, not
  // messages and tools.
  std::string kwargs_json = {};
  absl::Time now = absl::UnixEpoch();  // what strftime_now() sees, in UTC
  // What the strings of the documents above are guarded with; null when they are not. Whoever
  // parses one of these strings as JSON guards the strings found there anew: an escape may hide a
  // token.
  SpecialTokenGuard* guard = nullptr;
};

// A parsed template. Immutable; thread-safe.
class ChatTemplate {
 public:
  // The special tokens a template may name. An empty one is not defined in the template.
  struct Tokens {
    std::string bos_token = {};
    std::string eos_token = {};
    std::string pad_token = {};
    std::string unk_token = {};
  };

  // InvalidArgument with line number for a syntax error or a construct outside the subset.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Parse(std::string_view source,
                                                             Tokens tokens);
  virtual ~ChatTemplate() = default;

  // InvalidArgument: malformed JSON input, raise_exception() of the template (its message is the
  // status message), a type error, or a limit passed (steps, recursion depth, output bytes); the
  // latter two as "template line N: ...".
  virtual absl::StatusOr<std::string> Render(const ChatInput& input) const = 0;
};

}  // namespace essor::model
