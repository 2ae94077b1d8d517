#include "worker/session/conversions.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace essor::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

v1::Assign TwoRanks() {
  v1::Assign assign;
  assign.set_epoch(4);
  assign.set_plan("tp=2");
  assign.set_dtype("auto");
  assign.set_kv_dtype("bfloat16");
  for (uint32_t rank = 0; rank < 2; ++rank) {
    v1::RankPlacement* placement = assign.add_ranks();
    placement->set_rank(rank);
    placement->set_worker_id(10 + rank);
  }
  return assign;
}

TEST(AssignTest, TakesTheRanksOfThisWorker) {
  const auto assignment = FromProto(TwoRanks(), 11);
  ASSERT_TRUE(assignment.ok()) << assignment.status();
  EXPECT_EQ(assignment->epoch, 4u);
  EXPECT_EQ(assignment->plan.tp, 2u);
  EXPECT_THAT(assignment->local_ranks, ElementsAre(1));
}

TEST(AssignTest, DraftLayersAreSkippedUnlessItSaysOtherwise) {
  v1::Assign assign = TwoRanks();
  EXPECT_EQ(FromProto(assign, 11)->draft_layers, model::DraftLayers::kSkip);
  assign.set_draft_layers("load");
  EXPECT_EQ(FromProto(assign, 11)->draft_layers, model::DraftLayers::kLoad);
  assign.set_draft_layers("some");
  EXPECT_THAT(std::string(FromProto(assign, 11).status().message()),
              HasSubstr("\"some\" is not skip or load"));
}

TEST(AssignTest, TheTypeOfTheCacheIsNamed) {
  v1::Assign assign = TwoRanks();
  for (const KvType type : {KvType::kFloat32, KvType::kBFloat16, KvType::kFp8, KvType::kInt8}) {
    assign.set_kv_dtype(NameOf(type));
    EXPECT_EQ(FromProto(assign, 11)->limits.kv_type, type);
  }
  for (const char* name : {"", "auto", "int4"}) {
    assign.set_kv_dtype(name);
    EXPECT_THAT(std::string(FromProto(assign, 11).status().message()),
                HasSubstr(absl::StrCat("kv_dtype: \"", name, "\" is none of float32")));
  }
}

TEST(AssignTest, NamesWhatIsWrong) {
  EXPECT_THAT(std::string(FromProto(TwoRanks(), 12).status().message()),
              HasSubstr("epoch 4 gives worker 12 none"));
  v1::Assign plan = TwoRanks();
  plan.set_plan("zp=2");
  EXPECT_THAT(std::string(FromProto(plan, 11).status().message()), HasSubstr("zp"));
  v1::Assign dtype = TwoRanks();
  dtype.set_dtype("fp8");
  EXPECT_THAT(std::string(FromProto(dtype, 11).status().message()), HasSubstr("fp8"));
}

TEST(ConnectTest, EveryRankNeedsAMember) {
  v1::Connect connect;
  connect.set_epoch(4);
  v1::Connect::Member* member = connect.add_members();
  member->set_worker_id(10);
  member->mutable_data()->set_tcp_address("127.0.0.1:9");
  EXPECT_THAT(std::string(MembersFromProto(TwoRanks(), connect).status().message()),
              HasSubstr("rank 1 is on worker 11"));
  connect.add_members()->set_worker_id(11);
  const auto members = MembersFromProto(TwoRanks(), connect);
  ASSERT_TRUE(members.ok()) << members.status();
  EXPECT_EQ(members->ranks[0].endpoint.tcp_address, "127.0.0.1:9");
}

TEST(StepTest, SteadyDecodeIsASlotAlone) {
  v1::Step step;
  step.set_step_id(9);
  step.set_timeout_ms(1500);
  step.add_sequences()->set_slot(3);
  const StepInput input = FromProto(step, absl::UnixEpoch());
  EXPECT_EQ(input.deadline, absl::UnixEpoch() + absl::Milliseconds(1500));
  ASSERT_EQ(input.sequences.size(), 1u);
  EXPECT_EQ(input.sequences[0].slot, 3u);
  EXPECT_THAT(input.sequences[0].tokens, IsEmpty());
  EXPECT_TRUE(input.sequences[0].sample);
  EXPECT_LE(step.sequences(0).ByteSizeLong(), 8u);
}

TEST(StepTest, ResultCarriesTokensScoresAndLogits) {
  StepOutput output{.step_id = StepId(9),
                    .sampled = {{.slot = 3, .token = 77}},
                    .scored = {{.slot = 4, .logprobs = {-1.5f}, .logits = {1.0f, 2.0f}}},
                    .compute_time = absl::Microseconds(12)};
  v1::StepResult result;
  ToProto(output, 4, &result);
  EXPECT_EQ(result.epoch(), 4u);
  EXPECT_EQ(result.compute_us(), 12u);
  EXPECT_THAT(result.slot(), ElementsAre(3));
  EXPECT_THAT(result.token_id(), ElementsAre(77));
  EXPECT_EQ(result.scores(0).slot(), 4u);
  EXPECT_EQ(result.scores(0).logits().size(), 8u);
}

TEST(StepTest, SamplingOfASequence) {
  v1::Step step;
  v1::SequenceStart* const start = step.add_starts();
  start->set_prompt_tokens(9);
  start->set_context_tokens(2);
  start->add_seen_ids(5);
  start->add_seen_ids(6);
  v1::SequenceSampling* sampling = start->mutable_sampling();
  sampling->set_typical_p(0.5f);
  sampling->set_repetition_penalty(1.5f);
  sampling->set_presence_penalty(-1);
  sampling->set_frequency_penalty(0.25f);
  sampling->add_bias_ids(7);
  sampling->add_biases(-2);
  sampling->add_late_ids(3);
  sampling->set_min_new_tokens(4);
  sampling->set_logprobs(1);
  step.add_starts();
  const StepInput input = FromProto(step, absl::Now());
  ASSERT_EQ(input.starts.size(), 2u);
  EXPECT_EQ(input.starts[0].prompt_tokens, 9u);
  EXPECT_THAT(input.starts[0].seen_tokens, ElementsAre(5, 6));
  const SequenceSampling& set = input.starts[0].sampling;
  EXPECT_EQ(set.typical_p, 0.5f);
  EXPECT_EQ(set.repetition_penalty, 1.5f);
  EXPECT_EQ(set.presence_penalty, -1);
  EXPECT_EQ(set.frequency_penalty, 0.25f);
  EXPECT_THAT(set.logit_bias, ElementsAre(testing::Pair(7, -2.0f)));
  EXPECT_THAT(set.late_tokens, ElementsAre(3));
  EXPECT_EQ(set.min_new_tokens, 4u);
  EXPECT_EQ(set.logprobs, 0u);
  const SequenceSampling& unset = input.starts[1].sampling;
  EXPECT_EQ(unset.typical_p, 1);
  EXPECT_EQ(unset.repetition_penalty, 1);
  EXPECT_FALSE(unset.logprobs.has_value());
}

TEST(StepTest, LogprobsOfAnAnswer) {
  StepOutput output{.step_id = StepId(9),
                    .sampled = {{.slot = 3, .token = 77}},
                    .logprobs = {{.logprob = -0.5f, .top = {{8, -0.25f}, {77, -0.5f}}}},
                    .scored = {{.slot = 4, .logprobs = {-1.5f}, .logits = {}, .tops = {{{6, -1}}}}},
                    .compute_time = absl::ZeroDuration()};
  v1::StepResult result;
  ToProto(output, 4, &result);
  ASSERT_EQ(result.logprobs_size(), 1);
  EXPECT_EQ(result.logprobs(0).logprob(), -0.5f);
  EXPECT_THAT(result.logprobs(0).top_ids(), ElementsAre(8, 77));
  EXPECT_THAT(result.logprobs(0).top_logprobs(), ElementsAre(-0.25f, -0.5f));
  ASSERT_EQ(result.scores(0).tops_size(), 1);
  EXPECT_THAT(result.scores(0).tops(0).top_ids(), ElementsAre(6));
}

TEST(IsFatalTest, WhatWouldFailAgainIsFatal) {
  EXPECT_TRUE(IsFatal(absl::FailedPreconditionError(""), Failed::kForming));
  EXPECT_TRUE(IsFatal(absl::InvalidArgumentError(""), Failed::kForming));
  EXPECT_TRUE(IsFatal(absl::ResourceExhaustedError(""), Failed::kForming));
  EXPECT_FALSE(IsFatal(absl::UnavailableError(""), Failed::kForming));
  EXPECT_FALSE(IsFatal(absl::DeadlineExceededError(""), Failed::kForming));
}

TEST(IsFatalTest, FailedStepsEndTheirEpochOnly) {
  EXPECT_FALSE(IsFatal(absl::FailedPreconditionError(""), Failed::kStep));
  EXPECT_FALSE(IsFatal(absl::InvalidArgumentError(""), Failed::kStep));
  EXPECT_FALSE(IsFatal(absl::ResourceExhaustedError(""), Failed::kStep));
}

}  // namespace
}  // namespace essor::worker
