#include "worker/engine/sequence_slots.h"

#include <functional>
#include <string>
#include <vector>

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
      {"13 tokens exceed", Prompt(0, std::vector<TokenId>(13, 1), {0, 1, 2})},
      {"slot 0: 4 blocks, where the longest context takes 3", Prompt(0, {1}, {0, 1, 2, 3})},
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

// A sequence that has no next token has ended; what was queued behind it still runs.
TEST(SequenceSlotsTest, GoesOnFromTokenZeroWhereNoneWasSampled) {
  SequenceSlots slots(kLimits);
  StepRows rows;
  const StepInput prompt = Prompt(0, {1}, {0});
  ASSERT_TRUE(slots.Apply(prompt, &rows).ok());
  slots.Commit(prompt, rows);
  slots.SetLastToken(0, kNoToken);
  ASSERT_TRUE(slots.Apply(Decode(0), &rows).ok());
  EXPECT_THAT(rows.token_ids, ElementsAre(0));
}

// Of a model with layers of all kinds; windows are of 6 tokens.
constexpr SlotLimits kAllKinds{.num_slots = 2,
                               .num_blocks = 8,
                               .block_tokens = 4,
                               .max_context_tokens = 24,
                               .max_step_tokens = 6,
                               .vocab_size = 100,
                               .num_window_blocks = 5,
                               .num_snapshots = 2,
                               .kinds = {.full = true, .window_tokens = 6, .states = true},
                               .group = 1};

// Goes on behind 9 tokens of an earlier sequence, with one more of its own.
StepInput Resume() {
  StepInput input;
  input.starts.push_back({.slot = 1,
                          .sampling = {},
                          .context_tokens = 9,
                          .blocks = {7, 6, 5},
                          .first_window_block = 1,
                          .window_blocks = {4, 3},
                          .restore_snapshot = 1});
  input.sequences.push_back({.slot = 1, .tokens = {50}});
  return input;
}

// The first 9 tokens, with snapshot 1 behind them.
void SaveNineTokens(SequenceSlots& slots) {
  StepRows rows;
  StepInput first = Prompt(0, {1, 2, 3, 4, 5}, {0, 1});
  first.sequences[0].new_window_blocks = {0, 1};
  ASSERT_TRUE(slots.Apply(first, &rows).ok());
  slots.Commit(first, rows);
  StepInput second;
  second.sequences.push_back({.slot = 0,
                              .tokens = {6, 7, 8, 9},
                              .new_blocks = {2},
                              .new_window_blocks = {2},
                              .save_snapshot = 1});
  ASSERT_TRUE(slots.Apply(second, &rows).ok());
  slots.Commit(second, rows);
}

TEST(SequenceSlotsTest, GoesOnFromWhatAnEarlierSequenceLeft) {
  SequenceSlots slots(kAllKinds);
  SaveNineTokens(slots);
  StepRows rows;
  const StepInput resume = Resume();
  ASSERT_TRUE(slots.Apply(resume, &rows).ok());
  EXPECT_THAT(rows.positions, ElementsAre(9));
  ASSERT_EQ(rows.sequences.size(), 1u);
  ASSERT_EQ(rows.window_sequences.size(), 1u);
  EXPECT_EQ(rows.window_sequences[0].context_tokens, 9u);
  EXPECT_EQ(rows.window_sequences[0].num_rows, 1u);
  EXPECT_EQ(rows.window_sequences[0].slot, 1u);
  for (const uint32_t block : {0u, 1u, 2u}) {
    EXPECT_EQ(rows.sequences[0].block_table[block], 7 - block);
  }
  EXPECT_EQ(rows.window_sequences[0].block_table[1], 4u);
  EXPECT_EQ(rows.window_sequences[0].block_table[2], 3u);
  slots.Commit(resume, rows);

  // Both tables grow.
  StepInput more;
  more.sequences.push_back(
      {.slot = 1, .tokens = {51, 52, 53}, .new_blocks = {2}, .new_window_blocks = {1}});
  ASSERT_TRUE(slots.Apply(more, &rows).ok());
  EXPECT_EQ(rows.sequences[0].block_table[3], 2u);
  EXPECT_EQ(rows.window_sequences[0].block_table[3], 1u);
}

TEST(SequenceSlotsTest, RefusesWhatContradictsTheKindsOfMemory) {
  struct Case {
    const char* message;
    std::function<void(StepInput&)> change;  // of Resume()
  };
  const Case kCases[] = {
      {"slot 1: block 8 is not one of 8", [](StepInput& s) { s.starts[0].blocks[1] = 8; }},
      {"slot 1: window block 5 is not one of 5",
       [](StepInput& s) { s.starts[0].window_blocks[0] = 5; }},
      {"slot 1: window block 6 is not one of 5",
       [](StepInput& s) { s.sequences[0].new_window_blocks = {6}; }},
      {"slot 1: context_tokens 9 exceed its 8 KV slots",
       [](StepInput& s) { s.starts[0].blocks.pop_back(); }},
      {"slot 1: context_tokens 9 exceed its 8 KV slots",
       [](StepInput& s) { s.starts[0].window_blocks.pop_back(); }},
      {"slot 1: context_tokens 25 exceed its 12 KV slots or the context of 24",
       [](StepInput& s) { s.starts[0].context_tokens = 25; }},
      // Token 9 sees those from 4 on.
      {"slot 1: first_window_block 2 begins behind token 4",
       [](StepInput& s) { s.starts[0].first_window_block = 2; }},
      {"slot 1: first_window_block 7, where the longest context takes 6 blocks",
       [](StepInput& s) { s.starts[0].first_window_block = 7; }},
      {"slot 1: 7 window blocks, where the longest context takes 6",
       [](StepInput& s) { s.starts[0].window_blocks.resize(6); }},
      {"slot 1: context_tokens 9 without restore_snapshot",
       [](StepInput& s) { s.starts[0].restore_snapshot.reset(); }},
      {"slot 1: restore_snapshot 2 is not one of 2",
       [](StepInput& s) { s.starts[0].restore_snapshot = 2; }},
      {"slot 1: restore_snapshot 0 holds the states after 0 tokens, context_tokens is 9",
       [](StepInput& s) { s.starts[0].restore_snapshot = 0; }},
      {"slot 1: restore_snapshot 1 holds the states after 9 tokens, context_tokens is 10",
       [](StepInput& s) { s.starts[0].context_tokens = 10; }},
      {"slot 1: save_snapshot 2 is not one of 2",
       [](StepInput& s) { s.sequences[0].save_snapshot = 2; }},
      {"slot 1: save_snapshot 0 is another slot's too",
       [](StepInput& s) {
         s.sequences.insert(s.sequences.begin(), {.slot = 0, .tokens = {1}, .save_snapshot = 0});
         s.sequences[1].save_snapshot = 0;
       }},
      {"slot 1: 13 tokens exceed its 12 KV slots",
       [](StepInput& s) { s.sequences[0].tokens.assign(4, 1); }},
      {"copy from block 0 to 8: they are not two of 8",
       [](StepInput& s) { s.copies = {{.group = 1, .from = 0, .to = 8}}; }},
      {"copy from window block 5 to 0: they are not two of 5",
       [](StepInput& s) { s.copies = {{.group = 1, .from = 5, .to = 0, .window = true}}; }},
      {"copy from block 3 to 3",
       [](StepInput& s) { s.copies = {{.group = 1, .from = 3, .to = 3}}; }},
      {"copy of a block of group 0, not of 1",
       [](StepInput& s) { s.copies = {{.group = 0, .from = 2, .to = 3}}; }},
  };
  for (const Case& test : kCases) {
    SequenceSlots slots(kAllKinds);
    SaveNineTokens(slots);
    StepInput input = Resume();
    test.change(input);
    StepRows rows;
    const absl::Status status = slots.Apply(input, &rows);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << test.message;
    EXPECT_THAT(std::string(status.message()), HasSubstr(test.message));
  }
}

// Blocks of a kind that the model has no layers of are a mistake; those it has suffice.
TEST(SequenceSlotsTest, ModelsHaveBlocksOfTheirKindsOnly) {
  StepInput window = Prompt(0, {1}, {});
  window.sequences[0].new_window_blocks = {0};
  const StepInput full = Prompt(0, {1}, {0});
  const StepInput none = Prompt(0, {1}, {});
  struct Case {
    model::KvKinds kinds;
    const StepInput* accepted;
    std::vector<const StepInput*> refused;
  };
  const Case kCases[] = {
      {{.full = true}, &full, {&window, &none}},
      {{.window_tokens = 6}, &window, {&full, &none}},
      {{.states = true}, &none, {&full, &window}},
  };
  for (const Case& test : kCases) {
    SlotLimits limits = kAllKinds;
    limits.kinds = test.kinds;
    StepRows rows;
    const absl::Status accepted = SequenceSlots(limits).Apply(*test.accepted, &rows);
    EXPECT_TRUE(accepted.ok()) << accepted;
    for (const StepInput* input : test.refused) {
      EXPECT_FALSE(SequenceSlots(limits).Apply(*input, &rows).ok());
    }
  }
  // Nor may a start skip blocks of windows that there are none of.
  SequenceSlots slots(kLimits);
  StepRows rows;
  StepInput skips = Prompt(0, {1}, {0});
  skips.starts[0].first_window_block = 1;
  EXPECT_FALSE(slots.Apply(skips, &rows).ok());
}

}  // namespace
}  // namespace essor::worker
