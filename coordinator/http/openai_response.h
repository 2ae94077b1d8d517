// Answers of the OpenAI-compatible endpoints, written without a document tree.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "coordinator/core/request.h"
#include "coordinator/service/served_model.h"

namespace essor::coordinator {

// What every object of one answer repeats.
struct CompletionHead {
  bool chat = false;
  std::string id;
  std::string model;
  int64_t created_unix_s = 0;
};

// One choice of an answer that is not streamed.
struct Choice {
  std::string text;
  std::vector<TokenId> token_ids;
  FinishReason finish_reason = FinishReason::kNone;
};

std::string CompletionBody(const CompletionHead& head, const std::vector<Choice>& choices,
                           const Usage& usage, bool return_token_ids);

// How the data of one streamed event is written.
struct ChunkOptions {
  bool include_usage = false;  // then every chunk but the last has "usage": null
  bool return_token_ids = false;
};

// One event, "data: {...}\n\n".
std::string ChunkEvent(const CompletionHead& head, uint32_t choice, const TokenOutput& output,
                       const ChunkOptions& options);
// The first event of a chat choice: its role.
std::string RoleEvent(const CompletionHead& head, uint32_t choice, const ChunkOptions& options);
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
