#include "coordinator/http/completion_answer.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace essor::coordinator {
namespace {

CompletionRequest TwoChoices() {
  CompletionRequest request;
  request.n = 2;
  request.answer = {.logprobs = true, .echo = true};
  return request;
}

TEST(CompletionAnswerTest, APromptBeginsAllItsChoices) {
  CompletionItem item{.index = 1};
  item.prompt = PromptOutput{.token_ids = {4, 5}, .text = "hi", .logprobs = {{-1, {}}}};
  const auto parts = PartsOf(std::move(item), TwoChoices());
  ASSERT_EQ(parts.size(), 2u);
  for (uint32_t i = 0; i < 2; ++i) {
    EXPECT_EQ(parts[i].first, 2 + i);
    EXPECT_EQ(parts[i].second.text, "hi");
    ASSERT_EQ(parts[i].second.logprobs.size(), 2u);
    EXPECT_FALSE(parts[i].second.logprobs[0].logprob.has_value());
    EXPECT_EQ(parts[i].second.logprobs[1].logprob->logprob, -1);
    EXPECT_TRUE(parts[i].second.token_ids.empty());
  }
}

TEST(CompletionAnswerTest, TokensBelongToOneChoice) {
  CompletionItem item{.index = 2};
  item.tokens =
      TokenOutput{.index = 1, .token_ids = {9}, .text = "x", .logprobs = {{-2, {{9, -2}}}}};
  const auto parts = PartsOf(std::move(item), TwoChoices());
  ASSERT_EQ(parts.size(), 1u);
  EXPECT_EQ(parts[0].first, 5u);
  EXPECT_EQ(parts[0].second.text, "x");
  ASSERT_EQ(parts[0].second.logprobs.size(), 1u);
  EXPECT_EQ(parts[0].second.logprobs[0].id, 9u);
}

// A prompt is counted once, what was generated for each of its choices.
TEST(CompletionAnswerTest, UsageAddsUp) {
  AnswerUsage usage(2);
  for (uint32_t i = 0; i < 4; ++i) {
    CompletionItem item{.index = i / 2};
    item.tokens = TokenOutput{.index = i % 2};
    usage.Count(item);  // nothing has ended
    item.tokens->finish_reason = FinishReason::kLength;
    item.tokens->usage = {
        .prompt_tokens = 10 + i / 2, .generated_tokens = 1 + i, .cached_tokens = 3};
    usage.Count(item);
  }
  EXPECT_EQ(usage.Total().prompt_tokens, 21u);
  EXPECT_EQ(usage.Total().generated_tokens, 10u);
  EXPECT_EQ(usage.Total().cached_tokens, 6u);
}

}  // namespace
}  // namespace essor::coordinator
