// Answers of the OpenAI-compatible endpoints, written without a document tree.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "coordinator/core/request.h"
#include "coordinator/http/openai_choice.h"
#include "coordinator/service/served_model.h"

namespace essor::coordinator {

// What every object of one answer repeats.
struct CompletionHead {
  bool chat = false;
  std::string id;
  std::string model;
  int64_t created_unix_s = 0;
  const model::Tokenizer* tokenizer = nullptr;  // borrowed; null: tokens have no text
};

std::string CompletionBody(const CompletionHead& head, const std::vector<Choice>& choices,
                           const Usage& usage, const AnswerOptions& options);

// One event, "data: {...}\n\n", with a part of choice number `index`.
std::string ChunkEvent(const CompletionHead& head, uint32_t index, const Choice& part,
                       const AnswerOptions& options);
// The first event of a chat choice: its role.
std::string RoleEvent(const CompletionHead& head, uint32_t index, const AnswerOptions& options);
// The event without choices that include_usage asks for.
std::string UsageEvent(const CompletionHead& head, const Usage& usage);
std::string ErrorEvent(std::string_view error_body);
inline constexpr char kDoneEvent[] = "data: [DONE]\n\n";

std::string ModelListBody(const ServedModel& model);
std::string ModelBody(const ServedModel& model);
std::string TokensBody(const std::vector<TokenId>& tokens, uint32_t max_context_tokens);
std::string PromptBody(const std::string& prompt);
std::string VersionBody(const std::string& version, const std::string& build);

}  // namespace essor::coordinator
