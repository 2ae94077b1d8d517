#include "worker/engine/sequence_slots.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace essor::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr SlotLimits kLimits{.num_slots = 2,
                             .num_blocks = 8,
                             .block_tokens = 4,
                             .max_context_tokens = 12,
                             .max_step_tokens = 6,
                             .vocab_size = 100};

StepInput Prompt(uint32_t slot, std::vector<TokenId> tokens, std::vector<uint32_t> blocks) {
  StepInput input;
  input.starts.push_back({.slot = slot, .sampling = {.temperature = 0.5f, .seed = 9}});
  input.sequences.push_back(
      {.slot = slot, .tokens = std::move(tokens), .new_blocks = std::move(blocks)});
  return input;
}

StepInput Decode(uint32_t slot) {
  StepInput input;
  input.sequences.push_back({.slot = slot});
  return input;
}

TEST(SequenceSlotsTest, DecodeContinuesFromTheSampledToken) {
  SequenceSlots slots(kLimits);
  StepRows rows;
  const StepInput prompt = Prompt(1, {5, 6, 7}, {3});
  ASSERT_TRUE(slots.Apply(prompt, &rows).ok());
  EXPECT_THAT(rows.token_ids, ElementsAre(5, 6, 7));
  EXPECT_THAT(rows.positions, ElementsAre(0, 1, 2));
  EXPECT_EQ(slots.SamplingFor(prompt.sequences[0], rows.sequences[0]).position, 3u);
  slots.Commit(prompt, rows);
  slots.SetLastToken(1, 42);

  ASSERT_TRUE(slots.Apply(Decode(1), &rows).ok());
  EXPECT_THAT(rows.token_ids, ElementsAre(42));
  EXPECT_THAT(rows.positions, ElementsAre(3));
  EXPECT_EQ(rows.sequences[0].context_tokens, 3u);
  EXPECT_EQ(rows.sequences[0].block_table[0], 3u);
}

TEST(SequenceSlotsTest, AReleasedSlotStartsAnew) {
  SequenceSlots slots(kLimits);
  StepRows rows;
  const StepInput first = Prompt(0, {1}, {0});
  ASSERT_TRUE(slots.Apply(first, &rows).ok());
  slots.Commit(first, rows);
  StepInput second = Prompt(0, {2}, {5});
  second.release_slots = {0};
  ASSERT_TRUE(slots.Apply(second, &rows).ok());
  EXPECT_THAT(rows.positions, ElementsAre(0));
  EXPECT_EQ(rows.sequences[0].block_table[0], 5u);
}

// Each contradiction is named; none is acted on.
TEST(SequenceSlotsTest, RefusesStepsThatContradictItsState) {
  struct Case {
    const char* message;
    StepInput input;
  };
  StepInput release;
  release.release_slots = {1};
  StepInput scored = Prompt(0, {1}, {0});
  scored.sequences[0].score_targets = {1, 2};
  StepInput twice = Prompt(0, {1}, {0});
  twice.sequences.push_back(twice.sequences[0]);
  const Case kCases[] = {
      {"slot 0 is in the step twice", twice},
      {"slot 1, which is free", release},
      {"slot 0 is not running", Decode(0)},
      {"cannot start: it is unknown", Prompt(2, {1}, {0})},
      {"block 8 is not one of 8", Prompt(0, {1}, {8})},
      {"5 tokens exceed its 4 KV slots", Prompt(0, {1, 2, 3, 4, 5}, {0})},
      {"13 tokens exceed", Prompt(0, std::vector<TokenId>(13, 1), {0, 1, 2, 3})},
      {"token 100 is outside the vocabulary of 100", Prompt(0, {100}, {0})},
      {"has 7 tokens, the budget is 6", Prompt(0, std::vector<TokenId>(7, 1), {0, 1})},
      {"2 score targets for 1 rows", scored},
  };
  for (const Case& test : kCases) {
    SequenceSlots slots(kLimits);
    StepRows rows;
    const absl::Status status = slots.Apply(test.input, &rows);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(test.message));
  }
}

TEST(SequenceSlotsTest, RefusesDecodeBeforeAnythingWasSampled) {
  SequenceSlots slots(kLimits);
  StepRows rows;
  StepInput prompt = Prompt(0, {1}, {0});
  prompt.sequences[0].sample = false;
  ASSERT_TRUE(slots.Apply(prompt, &rows).ok());
  slots.Commit(prompt, rows);
  EXPECT_THAT(std::string(slots.Apply(Decode(0), &rows).message()), HasSubstr("no sampled token"));
}

}  // namespace
}  // namespace essor::worker
