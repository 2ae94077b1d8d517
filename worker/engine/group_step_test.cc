#include "worker/engine/group_step.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace essor::worker {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr StepGroups kGroups{.num_groups = 3, .slots_per_group = 4, .max_step_tokens = 5};

StepInput MixedStep() {
  StepInput step;
  step.step_id = StepId(7);
  step.release_slots = {9, 1};
  step.starts.push_back({.slot = 9, .sampling = {.temperature = 1, .logprobs = 2}});
  step.starts.push_back({.slot = 2, .sampling = {}});
  step.copies = {{.group = 0, .from = 1, .to = 2}, {.group = 2, .from = 3, .to = 4}};
  step.sequences.push_back({.slot = 3});
  step.sequences.push_back({.slot = 10});
  step.sequences.push_back({.slot = 2, .tokens = {5, 6, 7}, .new_blocks = {1}});
  step.sequences.push_back({.slot = 9, .tokens = {8, 9}});
  return step;
}

std::vector<uint32_t> SlotsOf(const std::vector<StepInput::Sequence>& sequences) {
  std::vector<uint32_t> slots;
  for (const StepInput::Sequence& sequence : sequences) slots.push_back(sequence.slot);
  return slots;
}

TEST(GroupStepTest, CountsTheRowsOfEveryGroup) {
  const auto rows = RowsOfGroups(MixedStep(), kGroups);
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_THAT(*rows, ElementsAre(4, 0, 3));
}

TEST(GroupStepTest, RefusesSlotsOfNoGroupAndTooManyRows) {
  StepInput step = MixedStep();
  step.sequences.push_back({.slot = 12});
  EXPECT_THAT(std::string(RowsOfGroups(step, kGroups).status().message()),
              HasSubstr("slot 12 is of none of the 3 groups of 4 slots"));
  step.sequences.back() = {.slot = 1, .tokens = {1, 2}};
  const auto code_with = [&](void (*change)(StepInput&)) {
    StepInput other = MixedStep();
    change(other);
    return RowsOfGroups(other, kGroups).status().code();
  };
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(code_with([](StepInput& other) { other.release_slots.push_back(12); }), kInvalid);
  EXPECT_EQ(code_with([](StepInput& other) { other.starts[0].slot = 12; }), kInvalid);
  EXPECT_EQ(code_with([](StepInput& other) { other.copies[1].group = 3; }), kInvalid);
  const absl::Status status = RowsOfGroups(step, kGroups).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("step 7 has 6 tokens for group 0, the budget is 5"));
}

TEST(GroupStepTest, GivesEachGroupItsPartInItsOwnNumbers) {
  const StepInput step = MixedStep();
  const StepInput first = StepOfGroup(step, kGroups, 0);
  EXPECT_EQ(first.step_id, StepId(7));
  EXPECT_THAT(first.release_slots, ElementsAre(1));
  ASSERT_EQ(first.starts.size(), 1u);
  EXPECT_EQ(first.starts[0].slot, 2u);
  ASSERT_EQ(first.copies.size(), 1u);
  EXPECT_EQ(first.copies[0].to, 2u);
  EXPECT_THAT(SlotsOf(first.sequences), ElementsAre(3, 2));
  EXPECT_THAT(first.sequences[1].tokens, ElementsAre(5, 6, 7));

  const StepInput idle = StepOfGroup(step, kGroups, 1);
  EXPECT_TRUE(idle.release_slots.empty() && idle.starts.empty() && idle.sequences.empty());

  const StepInput last = StepOfGroup(step, kGroups, 2);
  EXPECT_THAT(last.release_slots, ElementsAre(1));
  ASSERT_EQ(last.starts.size(), 1u);
  EXPECT_EQ(last.starts[0].slot, 1u);
  EXPECT_EQ(last.starts[0].sampling.temperature, 1);
  EXPECT_THAT(SlotsOf(last.sequences), ElementsAre(2, 1));
}

TEST(GroupStepTest, MergesWhatGroupsAnswerInTheStepsOrder) {
  StepInput step = MixedStep();
  step.sequences[2].sample = false;
  step.sequences[2].score = true;
  LogprobSlots slots(12);
  const std::vector<bool> with_logprobs = slots.Of(step);
  EXPECT_THAT(with_logprobs, ElementsAre(false, false, false, true));

  StepOutput of_first;
  of_first.sampled = {{.slot = 3, .token = 30}};
  of_first.scored.push_back({.slot = 2, .logprobs = {-1.0f}, .logits = {}});
  of_first.compute_time = absl::Milliseconds(2);
  StepOutput of_last;
  of_last.sampled = {{.slot = 2, .token = 100}, {.slot = 1, .token = 90}};
  of_last.logprobs = {{.logprob = -0.5f}};
  of_last.compute_time = absl::Milliseconds(3);
  RenumberSlots(8, &of_last);

  const StepOutput merged = MergeOutputs(step, with_logprobs, {of_last, of_first});
  EXPECT_EQ(merged.step_id, StepId(7));
  EXPECT_EQ(merged.compute_time, absl::Milliseconds(3));
  ASSERT_EQ(merged.sampled.size(), 3u);
  EXPECT_EQ(merged.sampled[0].slot, 3u);
  EXPECT_EQ(merged.sampled[0].token, 30u);
  EXPECT_EQ(merged.sampled[1].slot, 10u);
  EXPECT_EQ(merged.sampled[1].token, 100u);
  EXPECT_EQ(merged.sampled[2].slot, 9u);
  ASSERT_EQ(merged.logprobs.size(), 1u);
  EXPECT_EQ(merged.logprobs[0].logprob, -0.5f);
  ASSERT_EQ(merged.scored.size(), 1u);
  EXPECT_EQ(merged.scored[0].slot, 2u);
}

// Log-probabilities go with their sequences, and a slot's next sequence decides for itself.
TEST(GroupStepTest, KeepsLogprobsWithTheirSequences) {
  LogprobSlots slots(12);
  StepInput step;
  step.starts.push_back({.slot = 5, .sampling = {.logprobs = 0}});
  step.starts.push_back({.slot = 0, .sampling = {.logprobs = 1}});
  slots.Of(step);
  step.starts.clear();
  step.sequences = {{.slot = 5}, {.slot = 1}, {.slot = 0}};
  const std::vector<bool> with_logprobs = slots.Of(step);
  StepOutput first;
  first.sampled = {{.slot = 1, .token = 11}, {.slot = 0, .token = 10}};
  first.logprobs = {{.logprob = -10}};
  StepOutput second;
  second.sampled = {{.slot = 5, .token = 15}};
  second.logprobs = {{.logprob = -15}};
  const StepOutput merged = MergeOutputs(step, with_logprobs, {first, second});
  ASSERT_EQ(merged.logprobs.size(), 2u);
  EXPECT_EQ(merged.logprobs[0].logprob, -15);
  EXPECT_EQ(merged.logprobs[1].logprob, -10);

  step.starts.push_back({.slot = 5, .sampling = {}});
  EXPECT_THAT(slots.Of(step), ElementsAre(false, false, true));
}

}  // namespace
}  // namespace essor::worker
