#include "coordinator/http/completion_answer.h"

namespace essor::coordinator {

void AnswerUsage::Count(const CompletionItem& item) {
  if (!item.tokens.has_value() || item.tokens->finish_reason == FinishReason::kNone) return;
  Usage& usage = prompts_[item.index];
  usage.prompt_tokens = item.tokens->usage.prompt_tokens;
  usage.cached_tokens = item.tokens->usage.cached_tokens;
  usage.generated_tokens += item.tokens->usage.generated_tokens;
}

Usage AnswerUsage::Total() const {
  Usage total;
  for (const Usage& usage : prompts_) {
    total.prompt_tokens += usage.prompt_tokens;
    total.cached_tokens += usage.cached_tokens;
    total.generated_tokens += usage.generated_tokens;
  }
  return total;
}

std::vector<std::pair<uint32_t, Choice>> PartsOf(CompletionItem item,
                                                 const CompletionRequest& request) {
  const uint32_t first = item.index * request.n;
  std::vector<std::pair<uint32_t, Choice>> parts;
  if (item.tokens.has_value()) {
    const uint32_t choice = first + item.tokens->index;
    parts.emplace_back(choice, PartOf(*std::move(item.tokens), request.answer));
    return parts;
  }
  const Choice prompt = PartOf(*item.prompt, request.answer);
  for (uint32_t i = 0; i < request.n; ++i) parts.emplace_back(first + i, prompt);
  return parts;
}

}  // namespace essor::coordinator
