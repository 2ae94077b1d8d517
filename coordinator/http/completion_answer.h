// From the results behind one HTTP call to the choices of its answer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "coordinator/core/request.h"
#include "coordinator/http/completion_call.h"
#include "coordinator/http/openai_choice.h"
#include "coordinator/http/openai_request.h"

namespace essor::coordinator {

// What the prompts of one call cost.
class AnswerUsage {
 public:
  explicit AnswerUsage(size_t num_prompts) : prompts_(num_prompts) {}
  void Count(const CompletionCall::Item& item);
  Usage Total() const;

 private:
  std::vector<Usage> prompts_;
};

// What an item that is not done adds to which choices: a prompt begins all of its own.
std::vector<std::pair<uint32_t, Choice>> PartsOf(CompletionCall::Item item,
                                                 const CompletionRequest& request);

}  // namespace essor::coordinator
