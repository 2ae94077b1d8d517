#include "coordinator/http/openai_choice.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iterator>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "simdjson.h"

namespace essor::coordinator {
namespace {

// What OpenAI's clients know as "impossible".
constexpr float kSmallestLogprob = -9999.0f;

void PutString(std::string_view text, JsonWriter* writer) {
  writer->String(text.data(), static_cast<rapidjson::SizeType>(text.size()));
}

// As few digits as give the same float back.
void PutLogprob(float logprob, JsonWriter* writer) {
  const float value = logprob > kSmallestLogprob ? logprob : kSmallestLogprob;  // NaN, too
  char text[32];
  const char* const end = std::to_chars(text, text + sizeof(text), value).ptr;
  writer->RawValue(text, static_cast<size_t>(end - text), rapidjson::kNumberType);
}

std::string TextOf(TokenId id, const model::Tokenizer* tokenizer) {
  if (tokenizer == nullptr) return absl::StrCat("token_id:", id);
  const std::string_view bytes = tokenizer->TokenBytes(id);
  if (simdjson::validate_utf8(bytes)) return std::string(bytes);
  std::string text = "bytes:";
  for (const char byte : bytes) {
    absl::StrAppendFormat(&text, "\\x%02x", static_cast<unsigned char>(byte));
  }
  return text;
}

void PutChatToken(TokenId id, float logprob, const model::Tokenizer* tokenizer,
                  JsonWriter* writer) {
  writer->Key("token");
  PutString(TextOf(id, tokenizer), writer);
  writer->Key("logprob");
  PutLogprob(logprob, writer);
  writer->Key("bytes");
  if (tokenizer == nullptr) return void(writer->Null());
  writer->StartArray();
  for (const char byte : tokenizer->TokenBytes(id)) {
    writer->Uint(static_cast<unsigned char>(byte));
  }
  writer->EndArray();
}

// Texts are keys: of tokens with equal text only the most probable is told.
void PutTopByText(const AnswerToken& token, const model::Tokenizer* tokenizer, JsonWriter* writer) {
  std::set<std::string> told;
  const auto put = [&](TokenId id, float logprob) {
    const std::string text = TextOf(id, tokenizer);
    if (!told.insert(text).second) return;
    writer->Key(text.data(), static_cast<rapidjson::SizeType>(text.size()));
    PutLogprob(logprob, writer);
  };
  writer->StartObject();
  for (const auto& [id, logprob] : token.logprob->top) put(id, logprob);
  if (told.empty()) put(token.id, token.logprob->logprob);
  writer->EndObject();
}

void PutPromptEntry(TokenId id, float logprob, const model::Tokenizer* tokenizer,
                    JsonWriter* writer) {
  const std::string key = absl::StrCat(id);
  writer->Key(key.data(), static_cast<rapidjson::SizeType>(key.size()));
  writer->StartObject();
  writer->Key("logprob");
  PutLogprob(logprob, writer);
  writer->Key("decoded_token");
  PutString(TextOf(id, tokenizer), writer);
  writer->EndObject();
}

// With at most `count` most probable tokens in each place; they are sorted.
std::vector<AnswerToken> WithTop(uint32_t count, std::vector<AnswerToken> tokens) {
  for (AnswerToken& token : tokens) {
    if (!token.logprob.has_value() || token.logprob->top.size() <= count) continue;
    token.logprob->top.resize(count);
  }
  return tokens;
}

bool IsFirstByteOfCharacter(char byte) { return (static_cast<unsigned char>(byte) & 0xc0) != 0x80; }

}  // namespace

Choice PartOf(TokenOutput output, const AnswerOptions& options) {
  Choice part{.text = std::move(output.text),
              .token_ids = std::move(output.token_ids),
              .finish_reason = output.finish_reason};
  if (!options.logprobs) return part;
  const size_t count = std::min(part.token_ids.size(), output.logprobs.size());
  for (size_t i = 0; i < count; ++i) {
    part.logprobs.push_back({.id = part.token_ids[i], .logprob = std::move(output.logprobs[i])});
  }
  return part;
}

Choice PartOf(const PromptOutput& prompt, const AnswerOptions& options) {
  Choice part;
  if (options.echo) part.text = prompt.text;
  std::vector<AnswerToken> tokens;
  for (size_t i = 0; i < prompt.token_ids.size(); ++i) {
    AnswerToken& token = tokens.emplace_back(AnswerToken{.id = prompt.token_ids[i]});
    if (i > 0 && i <= prompt.logprobs.size()) token.logprob = prompt.logprobs[i - 1];
  }
  if (options.prompt_logprobs) {
    part.prompt_logprobs = WithTop(options.most_prompt_logprobs, tokens);
  }
  if (options.echo && options.logprobs) {
    part.logprobs = WithTop(options.most_logprobs, std::move(tokens));
  }
  return part;
}

void Append(Choice part, Choice* choice) {
  const auto append = [](auto from, auto* to) {
    to->insert(to->end(), std::make_move_iterator(from.begin()),
               std::make_move_iterator(from.end()));
  };
  choice->text += part.text;
  append(std::move(part.token_ids), &choice->token_ids);
  append(std::move(part.logprobs), &choice->logprobs);
  append(std::move(part.prompt_logprobs), &choice->prompt_logprobs);
  choice->finish_reason = part.finish_reason;
}

size_t NumCharacters(std::span<const AnswerToken> tokens, const model::Tokenizer* tokenizer) {
  if (tokenizer == nullptr) return 0;
  size_t count = 0;
  for (const AnswerToken& token : tokens) {
    if (tokenizer->IsSpecial(token.id)) continue;
    const std::string_view bytes = tokenizer->TokenBytes(token.id);
    count += static_cast<size_t>(std::count_if(bytes.begin(), bytes.end(), IsFirstByteOfCharacter));
  }
  return count;
}

void PutChatLogprobs(const Choice& choice, const model::Tokenizer* tokenizer, JsonWriter* writer) {
  writer->StartObject();
  writer->Key("content");
  writer->StartArray();
  for (const AnswerToken& token : choice.logprobs) {
    if (!token.logprob.has_value()) continue;
    writer->StartObject();
    PutChatToken(token.id, token.logprob->logprob, tokenizer, writer);
    writer->Key("top_logprobs");
    writer->StartArray();
    for (const auto& [id, logprob] : token.logprob->top) {
      writer->StartObject();
      PutChatToken(id, logprob, tokenizer, writer);
      writer->EndObject();
    }
    writer->EndArray();
    writer->EndObject();
  }
  writer->EndArray();
  writer->Key("refusal");
  writer->Null();
  writer->EndObject();
}

void PutCompletionLogprobs(const Choice& choice, const model::Tokenizer* tokenizer,
                           JsonWriter* writer) {
  const std::span<const AnswerToken> tokens(choice.logprobs);
  const auto put_array = [&](const char* key, const auto& put) {
    writer->Key(key);
    writer->StartArray();
    for (const AnswerToken& token : tokens) put(token);
    writer->EndArray();
  };
  writer->StartObject();
  put_array("tokens",
            [&](const AnswerToken& token) { PutString(TextOf(token.id, tokenizer), writer); });
  put_array("token_logprobs", [&](const AnswerToken& token) {
    if (!token.logprob.has_value()) return void(writer->Null());
    PutLogprob(token.logprob->logprob, writer);
  });
  put_array("top_logprobs", [&](const AnswerToken& token) {
    if (!token.logprob.has_value()) return void(writer->Null());
    PutTopByText(token, tokenizer, writer);
  });
  size_t offset = choice.text_offset;
  put_array("text_offset", [&](const AnswerToken& token) {
    writer->Uint64(offset);
    offset += NumCharacters({&token, 1}, tokenizer);
  });
  writer->EndObject();
}

void PutPromptLogprobs(const Choice& choice, const model::Tokenizer* tokenizer,
                       JsonWriter* writer) {
  writer->StartArray();
  for (const AnswerToken& token : choice.prompt_logprobs) {
    if (!token.logprob.has_value()) {
      writer->Null();
      continue;
    }
    writer->StartObject();
    PutPromptEntry(token.id, token.logprob->logprob, tokenizer, writer);
    for (const auto& [id, logprob] : token.logprob->top) {
      if (id != token.id) PutPromptEntry(id, logprob, tokenizer, writer);
    }
    writer->EndObject();
  }
  writer->EndArray();
}

}  // namespace essor::coordinator
