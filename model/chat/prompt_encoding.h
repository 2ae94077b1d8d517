// From chat messages to the token ids of a prompt.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "common/ids.h"
#include "model/chat/chat_template.h"
#include "model/tokenizer/tokenizer.h"

namespace essor::model {

// Renders `input` and encodes the result: special tokens written by the template become special
// tokens, the same text inside a message, a tool or a keyword argument stays text (see
// SpecialTokenGuard). No post-processor runs (the template writes BOS itself, as in transformers).
// Thread-safe. Errors of ChatTemplate::Render and Tokenizer::Encode.
absl::StatusOr<std::vector<TokenId>> EncodeChat(const ChatTemplate& chat_template,
                                                const Tokenizer& tokenizer, const ChatInput& input);

}  // namespace essor::model
