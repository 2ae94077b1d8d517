#include "worker/engine/token_history.h"

#include <map>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace essor::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

constexpr TokenHistory::Limits kLimits{.num_slots = 2, .max_context_tokens = 16, .vocab = {10, 20}};

// A history with memory of its own.
class TokenHistoryTest : public ::testing::Test {
 protected:
  TokenHistoryTest() {
    Arena measure = Arena::Measure();
    TokenHistory(kLimits, measure);
    auto arena = Arena::Allocate(measure.used_bytes(), "test");
    arena_ = std::make_unique<Arena>(*std::move(arena));
    history_ = std::make_unique<TokenHistory>(kLimits, *arena_);
  }

  // One step: `start` if any, then `tokens` of slot 0 from `position` on.
  absl::Status Step(const std::vector<StepInput::Start>& starts, std::vector<uint32_t> tokens,
                    uint32_t position) {
    StepInput input;
    input.starts = starts;
    StepRows rows;
    for (uint32_t i = 0; i < tokens.size(); ++i) rows.positions.push_back(position + i);
    rows.sequences.push_back({.first_row = 0,
                              .num_rows = static_cast<uint32_t>(tokens.size()),
                              .context_tokens = position,
                              .block_table = nullptr,
                              .slot = 0});
    rows.token_ids = std::move(tokens);
    return history_->Apply(input, rows);
  }

  // Times among the new tokens, by token; those seen at all.
  std::map<uint32_t, uint32_t> Counts(uint64_t position = 100) const {
    std::map<uint32_t, uint32_t> counts;
    const auto adjustment = history_->AdjustmentFor(0, position);
    for (uint32_t column : adjustment->marked) {
      counts[10 + column] = adjustment->marks[column] / 2;
    }
    return counts;
  }

  std::unique_ptr<Arena> arena_;
  std::unique_ptr<TokenHistory> history_;
};

StepInput::Start StartOf(SequenceSampling sampling, uint32_t prompt_tokens) {
  return {.slot = 0, .sampling = std::move(sampling), .prompt_tokens = prompt_tokens};
}

TEST_F(TokenHistoryTest, CountsNewTokensOfItsSliceFromTheStepThatComputesThem) {
  ASSERT_TRUE(Step({StartOf({.repetition_penalty = 1.5f}, 3)}, {11, 5}, 0).ok());
  EXPECT_THAT(Counts(), ElementsAre(Pair(11, 0)));
  ASSERT_TRUE(Step({}, {19, 11, 11}, 2).ok());  // the prompt's last, then two new ones
  EXPECT_THAT(Counts(), ElementsAre(Pair(11, 2), Pair(19, 0)));
  ASSERT_TRUE(Step({}, {20}, 5).ok());  // of another rank
  ASSERT_TRUE(Step({}, {10}, 6).ok());
  EXPECT_THAT(Counts(), ElementsAre(Pair(10, 1), Pair(11, 2), Pair(19, 0)));
  EXPECT_EQ(history_->AdjustmentFor(0, 7)->repetition_penalty, 1.5f);
}

TEST_F(TokenHistoryTest, BeginsWithTheTokensBeforeTheContext) {
  StepInput::Start start = StartOf({.frequency_penalty = 0.5f}, 2);
  start.context_tokens = 3;
  start.seen_tokens = {12, 13, 13};  // the last one was generated before
  ASSERT_TRUE(Step({start}, {12}, 3).ok());
  EXPECT_THAT(Counts(), ElementsAre(Pair(12, 1), Pair(13, 1)));
}

TEST_F(TokenHistoryTest, ANewSequenceKnowsNothingOfTheLast) {
  ASSERT_TRUE(Step({StartOf({.presence_penalty = 1}, 1)}, {11, 12, 13}, 0).ok());
  ASSERT_TRUE(Step({StartOf({.presence_penalty = 1}, 1)}, {14}, 0).ok());
  EXPECT_THAT(Counts(), ElementsAre(Pair(14, 0)));
  ASSERT_TRUE(Step({StartOf({}, 1)}, {15}, 0).ok());
  EXPECT_FALSE(history_->AdjustmentFor(0, 1).has_value());
}

TEST_F(TokenHistoryTest, BiasesAndLateTokensAreThoseOfTheSlice) {
  const SequenceSampling sampling{.logit_bias = {{9, 1.0f}, {10, 2.0f}, {19, 3.0f}, {20, 4.0f}},
                                  .late_tokens = {2, 15},
                                  .min_new_tokens = 2};
  ASSERT_TRUE(Step({StartOf(sampling, 4)}, {11, 11, 11, 11}, 0).ok());
  const auto first = history_->AdjustmentFor(0, 4);
  EXPECT_THAT(first->biases, ElementsAre(Pair(0, 2.0f), Pair(9, 3.0f)));
  EXPECT_THAT(first->blocked, ElementsAre(5));
  EXPECT_TRUE(first->marked.empty());
  EXPECT_THAT(history_->AdjustmentFor(0, 5)->blocked, ElementsAre(5));
  EXPECT_TRUE(history_->AdjustmentFor(0, 6)->blocked.empty());  // two new tokens are there
}

TEST_F(TokenHistoryTest, ManyDifferentTokensFitTheMemory) {
  ASSERT_TRUE(Step({StartOf({.presence_penalty = 1}, 0)},
                   {10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 10, 11, 12, 13, 14, 15}, 0)
                  .ok());
  EXPECT_EQ(Counts().size(), 10u);
}

TEST_F(TokenHistoryTest, RefusesStartsThatCannotBeFollowed) {
  StepInput::Start start = StartOf({.presence_penalty = 1}, 2);
  start.context_tokens = 2;
  start.seen_tokens = {11};
  absl::Status status = Step({start}, {}, 2);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("slot 0: 1 seen tokens for a context of 2"));
  status = Step({StartOf({.logprobs = 65}, 2)}, {}, 0);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("65 log-probabilities"));
  // Without penalties nobody needs them.
  start.sampling.presence_penalty = 0;
  EXPECT_TRUE(Step({start}, {}, 2).ok());
}

}  // namespace
}  // namespace essor::worker
