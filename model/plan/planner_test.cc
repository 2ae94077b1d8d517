#include "model/plan/planner.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/spec/spec_test_support.h"

namespace essor::model {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr uint64_t kGb = 1'000'000'000;

TEST(PlannerTest, PublishedShapesOnEightAndSixteenDevices) {
  const ModelSpec qwen = LoadSpec("configs/qwen3-235b-a22b");
  const ModelSpec mixtral = LoadSpec("configs/mixtral-8x22b");
  for (const ModelSpec* spec : {&qwen, &mixtral}) {
    for (const uint32_t ranks : {8u, 16u}) {
      const auto choice = ChoosePlan({.spec = spec, .num_ranks = ranks, .memory_bytes = 80 * kGb});
      ASSERT_TRUE(choice.ok()) << choice.status();
      EXPECT_EQ(choice->instance.plan.NumRanks(), ranks);
      ASSERT_EQ(choice->instance.memory.size(), ranks);
      uint64_t weights = 0;
      for (const MemoryPlan& memory : choice->instance.memory) {
        EXPECT_LE(memory.total_bytes(), 80 * kGb);
        EXPECT_EQ(memory.capacity, choice->instance.capacity);
        weights += memory.weight_bytes;
      }
      // Every parameter is somewhere, in two bytes.
      EXPECT_GE(weights, 2 * spec->NumParameters());
      EXPECT_GT(choice->instance.price.tokens_per_second, 0);
      EXPECT_THAT(choice->reason, HasSubstr("is predicted to be fastest of the "));
    }
  }
}

// Maverick takes 801 GB and for one context of 1 M tokens 206 GB more. Scout's 216 GB fit on less,
// its context of 10 M tokens does not.
TEST(PlannerTest, Llama4FitsWhereItsContextDoes) {
  const ModelSpec maverick = LoadSpec("configs/llama-4-maverick");
  const ModelSpec scout = LoadSpec("configs/llama-4-scout");
  PlannerRequest request{.spec = &maverick, .num_ranks = 16, .memory_bytes = 80 * kGb};
  EXPECT_TRUE(ChoosePlan(request).ok());
  request.num_ranks = 8;
  EXPECT_EQ(ChoosePlan(request).status().code(), absl::StatusCode::kResourceExhausted);
  request.memory_bytes = 141 * kGb;
  EXPECT_TRUE(ChoosePlan(request).ok());

  request = {.spec = &scout, .num_ranks = 8, .memory_bytes = 80 * kGb};
  const auto refused = ChoosePlan(request);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("KV cache for one sequence of 10485760 tokens"));
  request.limits.max_context_tokens = 131072;
  EXPECT_TRUE(ChoosePlan(request).ok());
}

// No other valid plan is both fitting and faster.
TEST(PlannerTest, ChoosesTheFastestFittingPlan) {
  const ModelSpec spec = LoadSpec("configs/mixtral-8x22b");
  const PlannerRequest request{
      .spec = &spec, .num_ranks = 8, .memory_bytes = 80 * kGb, .hardware = H200Hardware()};
  const auto choice = ChoosePlan(request);
  ASSERT_TRUE(choice.ok()) << choice.status();
  for (const char* text : {"tp=8", "ep=8", "tp=8,ep=8", "pp=2,tp=4", "pp=8", "pp=4,tp=2,ep=2"}) {
    const auto other = EvaluatePlan(*ParallelPlan::Parse(text), request);
    if (!other.ok()) continue;
    EXPECT_LE(other->price.tokens_per_second, choice->instance.price.tokens_per_second) << text;
  }
}

// On CPU ranks, where exchanges are cheap beside reading weights, a small MoE is sliced rather than
// cut into stages that wait for each other.
TEST(PlannerTest, SmallMoeOnTwoCpuRanks) {
  ModelSpec spec{.family = "mixtral",
                 .hidden_size = 576,
                 .vocab_size = 49152,
                 .max_context_tokens = 2048,
                 .tied_embeddings = true};
  const GroupedQueryAttention attention{.num_heads = 9, .num_kv_heads = 3, .head_dim = 64};
  spec.layers.assign(30, {.attention = attention,
                          .ffn = MoeFfn{.num_experts = 8, .top_k = 2, .intermediate_size = 1536}});
  const auto choice = ChoosePlan({.spec = &spec, .num_ranks = 2, .memory_bytes = 8 * kGb});
  ASSERT_TRUE(choice.ok()) << choice.status();
  EXPECT_EQ(choice->instance.plan, (ParallelPlan{.tp = 2}));
  // Three KV heads do not divide by two; but for groups, which take half of the sequences each,
  // that alone is too little, since a lone sequence would run on half of the ranks.
  EXPECT_THAT(choice->reason,
              HasSubstr("plans over 2 ranks that fit but for data-parallel groups, which gain less "
                        "than a quarter (pp=1,dp=2,tp=1,ep=2: "));
}

// Latents are held whole by every rank of a tensor-parallel group. For a few sequences that costs
// little; for many it is most of what a step reads, and groups with a part of them each win.
TEST(PlannerTest, GroupsServeManySequencesOfLatentAttention) {
  const ModelSpec spec = LoadSpec("configs/deepseek-v3");
  PlannerRequest request{.spec = &spec,
                         .num_ranks = 16,
                         .memory_bytes = 141 * kGb,
                         .stored = DType::kF8E4M3,
                         .hardware = H200Hardware()};
  request.limits.max_context_tokens = 65536;
  const auto few = ChoosePlan(request);
  ASSERT_TRUE(few.ok()) << few.status();
  EXPECT_EQ(few->instance.plan.dp, 1u);
  request.workload = {.batch = 512, .context_tokens = 16384};
  const auto many = ChoosePlan(request);
  ASSERT_TRUE(many.ok()) << many.status();
  EXPECT_GE(many->instance.plan.dp, 8u);
  EXPECT_EQ(many->instance.plan.ep, 16u);
  const auto without = EvaluatePlan({.tp = 16}, request);
  ASSERT_TRUE(without.ok()) << without.status();
  EXPECT_GT(many->instance.price.tokens_per_second, 1.25 * without->price.tokens_per_second);
}

// Groups of a model without experts share nothing: asked for they work, chosen they are not.
TEST(PlannerTest, DenseModelsHaveGroupsOnlyWhereAskedFor) {
  const ModelSpec spec = LoadSpec("nano/llama");
  PlannerRequest request{.spec = &spec, .num_ranks = 2, .memory_bytes = kGb};
  request.workload.batch = 64;
  const auto choice = ChoosePlan(request);
  ASSERT_TRUE(choice.ok()) << choice.status();
  EXPECT_EQ(choice->instance.plan.dp, 1u);
  const auto asked = EvaluatePlan({.dp = 2}, request);
  ASSERT_TRUE(asked.ok()) << asked.status();
  EXPECT_EQ(asked->price.exchange_seconds, 0);
  EXPECT_EQ(asked->memory[0].weight_bytes, asked->memory[1].weight_bytes);
}

TEST(PlannerTest, SaysByHowMuchItDoesNotFit) {
  const ModelSpec spec = LoadSpec("configs/qwen3-235b-a22b");
  const auto choice = ChoosePlan({.spec = &spec, .num_ranks = 4, .memory_bytes = 80 * kGb});
  EXPECT_EQ(choice.status().code(), absl::StatusCode::kResourceExhausted);
  const std::string message(choice.status().message());
  EXPECT_THAT(message,
              StartsWith("no plan over 4 ranks of 80.0 GB holds this model; the leanest, pp="));
  EXPECT_THAT(message, HasSubstr(" does not fit: rank "));
  EXPECT_THAT(message, HasSubstr("GB more than the 80.0 GB it may use"));
}

TEST(PlannerTest, EvaluatesOneGivenPlan) {
  const ModelSpec spec = LoadSpec("configs/qwen3-235b-a22b");
  const PlannerRequest request{.spec = &spec, .num_ranks = 8, .memory_bytes = 80 * kGb};
  const auto instance = EvaluatePlan({.tp = 8, .ep = 8}, request);
  ASSERT_TRUE(instance.ok()) << instance.status();
  EXPECT_EQ(instance->ranks.size(), 8u);
  // 94 layers x 2 (K and V) x 1 head of 128 x 2 bytes x 16 tokens: 8 ranks share 4 KV heads.
  EXPECT_EQ(instance->memory[0].block_bytes, 94u * 2 * 128 * 2 * 16);

  const auto replicated = EvaluatePlan({.pp = 1, .ep = 4}, request);
  EXPECT_EQ(replicated.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(replicated.status().message()),
              StartsWith("pp=1,dp=1,tp=1,ep=4 does not fit: rank 0 needs "));
  EXPECT_EQ(EvaluatePlan({.tp = 128}, request).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(PlannerTest, OneRank) {
  const ModelSpec spec = LoadSpec("nano/llama");
  const auto choice = ChoosePlan({.spec = &spec, .num_ranks = 1, .memory_bytes = kGb});
  ASSERT_TRUE(choice.ok()) << choice.status();
  EXPECT_EQ(choice->reason,
            "pp=1,dp=1,tp=1,ep=1 is the only plan over 1 ranks that is valid and fits");
}

TEST(PlannerTest, RefusesRankCountsWithoutAPlan) {
  const ModelSpec spec = LoadSpec("nano/llama");  // 4 heads, 2 layers
  const auto choice = ChoosePlan({.spec = &spec, .num_ranks = 7, .memory_bytes = kGb});
  EXPECT_EQ(choice.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(std::string(choice.status().message()),
            "no plan divides this model over 7 ranks: for example tp=7 exceeds the model's 4 "
            "attention heads");
  EXPECT_EQ(ChoosePlan({.spec = &spec, .num_ranks = 0}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace essor::model
