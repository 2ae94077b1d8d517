// From the results behind one HTTP call to the choices of its answer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "coordinator/core/request.h"
#include "coordinator/http/openai_choice.h"
#include "coordinator/http/openai_request.h"

namespace essor::coordinator {

// Results of prompt number `index`: the prompt itself, tokens, or its end.
struct CompletionItem {
  uint32_t index = 0;
  std::optional<PromptOutput> prompt{};
  std::optional<TokenOutput> tokens{};
  std::optional<absl::Status> done{};
};

// What the prompts of one call cost.
class AnswerUsage {
 public:
  explicit AnswerUsage(size_t num_prompts) : prompts_(num_prompts) {}
  void Count(const CompletionItem& item);
  Usage Total() const;

 private:
  std::vector<Usage> prompts_;
};

// What an item that is not done adds to which choices: a prompt begins all of its own.
std::vector<std::pair<uint32_t, Choice>> PartsOf(CompletionItem item,
                                                 const CompletionRequest& request);

}  // namespace essor::coordinator
