// The choices of an OpenAI answer, whole or a part of one that is streamed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "coordinator/core/request.h"
#include "model/tokenizer/tokenizer.h"
#include "rapidjson/stringbuffer.h"
#include "rapidjson/writer.h"

namespace essor::coordinator {

using JsonWriter = rapidjson::Writer<rapidjson::StringBuffer>;

// A token whose log-probability is told; nothing is known of a prompt's first.
struct AnswerToken {
  TokenId id = 0;
  std::optional<TokenLogprob> logprob{};
};

struct Choice {
  std::string text{};
  std::vector<TokenId> token_ids{};            // generated
  std::vector<AnswerToken> logprobs{};         // of an echoed prompt and the generated tokens
  std::vector<AnswerToken> prompt_logprobs{};  // when asked for apart
  FinishReason finish_reason = FinishReason::kNone;
  size_t text_offset = 0;  // characters of the choice before `logprobs`
};

// What an answer has beside its text.
struct AnswerOptions {
  bool include_usage = false;  // of a stream: then every chunk but the last has "usage": null
  bool return_token_ids = false;
  bool logprobs = false;
  bool echo = false;
  bool prompt_logprobs = false;
  // Most probable tokens that are told in each place; there may be more, as an echoed prompt and
  // `prompt_logprobs` can ask for different numbers.
  uint32_t most_logprobs = UINT32_MAX;
  uint32_t most_prompt_logprobs = UINT32_MAX;
};

Choice PartOf(TokenOutput output, const AnswerOptions& options);
Choice PartOf(const PromptOutput& prompt, const AnswerOptions& options);
// Adds the part that follows.
void Append(Choice part, Choice* choice);

// Characters that the tokens add to the text, which leaves special tokens out.
size_t NumCharacters(std::span<const AnswerToken> tokens, const model::Tokenizer* tokenizer);

// The value of a choice's "logprobs" in the form of chat, or that of completions. A token that is
// not whole characters is written "bytes:\xe2\x82", with a null tokenizer "token_id:7"; minus
// infinity is -9999.
void PutChatLogprobs(const Choice& choice, const model::Tokenizer* tokenizer, JsonWriter* writer);
void PutCompletionLogprobs(const Choice& choice, const model::Tokenizer* tokenizer,
                           JsonWriter* writer);
// [null, {"id": {"logprob", "decoded_token"}, ...}, ...], one entry for each token of the prompt.
void PutPromptLogprobs(const Choice& choice, const model::Tokenizer* tokenizer, JsonWriter* writer);

}  // namespace essor::coordinator
