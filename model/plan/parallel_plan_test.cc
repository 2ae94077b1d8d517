#include "model/plan/parallel_plan.h"

#include <algorithm>
#include <string>
#include <variant>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/plan/attention_shape.h"
#include "model/plan/random_models.h"

namespace essor::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// SmolLM2-135M as an MoE: 9 query and 3 KV heads of 64, 8 experts of 1536, tied.
ModelSpec SmallMoe() {
  ModelSpec spec{.family = "mixtral",
                 .hidden_size = 576,
                 .vocab_size = 49152,
                 .max_context_tokens = 8192,
                 .tied_embeddings = true};
  const GroupedQueryAttention attention{.num_heads = 9, .num_kv_heads = 3, .head_dim = 64};
  spec.layers.assign(30, {.attention = attention,
                          .ffn = MoeFfn{.num_experts = 8, .top_k = 2, .intermediate_size = 1536}});
  return spec;
}

ModelSpec SmallDense() {
  ModelSpec spec = SmallMoe();
  spec.family = "llama";
  for (LayerSpec& layer : spec.layers) layer.ffn = DenseFfn{.intermediate_size = 1536};
  return spec;
}

TEST(ParallelPlanTest, ParsesAnySubsetInAnyOrder) {
  const auto plan = ParallelPlan::Parse("ep=4,pp=2");
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(*plan, (ParallelPlan{.pp = 2, .dp = 1, .tp = 1, .ep = 4}));
  EXPECT_EQ(plan->ToString(), "pp=2,dp=1,tp=1,ep=4");
  EXPECT_EQ(ParallelPlan::Parse(plan->ToString()).value(), *plan);
  EXPECT_EQ(plan->RanksPerStage(), 4u);
  EXPECT_EQ(plan->NumRanks(), 8u);
  EXPECT_EQ(ParallelPlan::Parse("dp=2,tp=2,ep=4")->NumRanks(), 4u);
  EXPECT_EQ(ParallelPlan::Parse("tp=1")->NumRanks(), 1u);
}

TEST(ParallelPlanTest, RefusesBadText) {
  const struct {
    const char* text;
    const char* message;
  } kCases[] = {
      {"", "plan \"\": \"\" is not one of pp=N, dp=N, tp=N, ep=N"},
      {"tp", "\"tp\" is not one of"},
      {"tp=2,", "\"\" is not one of"},
      {"sp=2", "\"sp=2\" is not one of"},
      {"tp=2, ep=2", "\" ep=2\" is not one of"},
      {"tp=", "tp= is not a whole number from 1 to 4096"},
      {"tp=0", "tp=0 is not a whole number"},
      {"tp=-1", "tp=-1 is not a whole number"},
      {"tp=2x", "tp=2x is not a whole number"},
      {"tp=99999999999999", "is not a whole number"},
      {"tp=5000", "tp=5000 is not a whole number from 1 to 4096"},
      {"tp=2,tp=2", "tp is given twice"},
      {"tp=2,ep=3",
       "plan \"tp=2,ep=3\": of dp x tp = 2 and ep=3 the larger must be a multiple of the smaller"},
      {"pp=64,tp=128", "more than 4096 ranks"},
  };
  for (const auto& test : kCases) {
    const auto plan = ParallelPlan::Parse(test.text);
    EXPECT_EQ(plan.status().code(), absl::StatusCode::kInvalidArgument) << test.text;
    EXPECT_THAT(std::string(plan.status().message()), HasSubstr(test.message));
  }
}

TEST(ValidatePlanTest, AcceptsWhatIssuesAskFor) {
  for (const char* text : {"tp=1", "tp=2", "tp=3", "ep=2", "ep=3", "pp=2", "tp=2,pp=2", "tp=2,ep=2",
                           "tp=9", "ep=8", "pp=30", "tp=2,ep=8"}) {
    EXPECT_EQ(ValidatePlan(*ParallelPlan::Parse(text), SmallMoe(), 32), absl::OkStatus()) << text;
  }
}

TEST(ValidatePlanTest, RefusesWithOneSentence) {
  const struct {
    ParallelPlan plan;
    ModelSpec spec;
    uint32_t quant_block;
    const char* message;
  } kCases[] = {
      {{.tp = 16}, SmallMoe(), 1, "tp=16 exceeds the model's 9 attention heads"},
      {{.pp = 40}, SmallMoe(), 1, "pp=40 exceeds the model's 30 layers"},
      {{.dp = 2, .tp = 3, .ep = 4},
       SmallMoe(),
       1,
       "of dp x tp = 6 and ep=4 the larger must be a multiple of the smaller"},
      {{.ep = 9}, SmallMoe(), 1, "ep=9 exceeds the model's 8 experts"},
      {{.ep = 2}, SmallDense(), 1, "ep=2 spreads experts, and this model (llama) has none"},
      {{.tp = 2, .ep = 3},
       SmallMoe(),
       1,
       "of tp=2 and ep=3 the larger must be a multiple of the smaller"},
      {{.tp = 0}, SmallMoe(), 1, "plan pp=1,dp=1,tp=0,ep=1 has a factor below 1"},
  };
  for (const auto& test : kCases) {
    const absl::Status status = ValidatePlan(test.plan, test.spec, test.quant_block);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << test.message;
    EXPECT_EQ(std::string(status.message()), test.message);
  }
}

TEST(ValidatePlanTest, RefusesCutsInsideQuantisedBlocks) {
  ModelSpec spec = SmallMoe();
  auto& moe = std::get<MoeFfn>(spec.layers[0].ffn);
  moe.intermediate_size = 64;
  EXPECT_EQ(ValidatePlan({.tp = 3}, spec, 1), absl::OkStatus());
  EXPECT_EQ(
      std::string(ValidatePlan({.tp = 3}, spec, 32).message()),
      "tp=3 with ep=1 cuts each expert of 64 columns (2 quantised blocks of 32) into 3 parts");
  moe.intermediate_size = 80;
  EXPECT_EQ(std::string(ValidatePlan({.tp = 2}, spec, 32).message()),
            "tp=2 with ep=1 cuts each expert of 80 columns, which is not whole quantised blocks of "
            "32");
  moe.intermediate_size = 1536;
  std::get<GroupedQueryAttention>(spec.layers[3].attention).head_dim = 80;
  EXPECT_EQ(ValidatePlan({.ep = 2}, spec, 32), absl::OkStatus());
  EXPECT_EQ(std::string(ValidatePlan({.tp = 2}, spec, 32).message()),
            "tp=2 cuts the output projection between heads of 80 columns, inside quantised blocks "
            "of 32");

  ModelSpec dense = SmallDense();
  std::get<DenseFfn>(dense.layers[7].ffn).intermediate_size = 4;
  EXPECT_EQ(std::string(ValidatePlan({.tp = 5}, dense, 1).message()),
            "tp=5 cuts the FFN of 4 columns into 5 parts");
  dense = SmallDense();
  dense.vocab_size = 3;
  EXPECT_EQ(std::string(ValidatePlan({.tp = 4}, dense, 1).message()),
            "4 ranks per stage exceed the model's 3 vocabulary rows");
}

// 3 KV heads over 2 ranks is 2 + 1; the experts' columns split evenly.
TEST(LayoutTest, UnevenHeads) {
  const auto layouts = LayoutsOf({.tp = 2}, SmallMoe(), 32);
  EXPECT_EQ(layouts[0].per_layer[0].kv_heads, (Range{0, 2}));
  EXPECT_EQ(layouts[0].per_layer[0].heads, (Range{0, 6}));
  EXPECT_EQ(layouts[1].per_layer[0].kv_heads, (Range{2, 3}));
  EXPECT_EQ(layouts[1].per_layer[0].heads, (Range{6, 9}));
  EXPECT_EQ(layouts[1].per_layer[0].experts, (Range{0, 8}));
  EXPECT_EQ(layouts[1].per_layer[0].expert_ffn, (Range{768, 1536}));
  EXPECT_EQ(layouts[0].vocab, (Range{0, 24576}));
  EXPECT_EQ(layouts[1].vocab, (Range{24576, 49152}));
}

// Above 3 KV heads each rank has a copy of one and a part of its group.
TEST(LayoutTest, MoreRanksThanKvHeads) {
  const auto layouts = LayoutsOf({.tp = 5}, SmallMoe(), 1);
  const Range kHeads[] = {{0, 2}, {2, 3}, {3, 5}, {5, 6}, {6, 9}};
  const Range kKvHeads[] = {{0, 1}, {0, 1}, {1, 2}, {1, 2}, {2, 3}};
  for (size_t rank = 0; rank < 5; ++rank) {
    EXPECT_EQ(layouts[rank].per_layer[0].heads, kHeads[rank]) << rank;
    EXPECT_EQ(layouts[rank].per_layer[0].kv_heads, kKvHeads[rank]) << rank;
  }
}

// ep alone replicates attention and spreads whole experts; the higher ranks have one more.
TEST(LayoutTest, ExpertsAlone) {
  const auto layouts = LayoutsOf({.ep = 3}, SmallMoe(), 32);
  const Range kExperts[] = {{0, 2}, {2, 5}, {5, 8}};
  for (uint32_t rank = 0; rank < 3; ++rank) {
    EXPECT_EQ(layouts[rank].per_layer[0].heads, (Range{0, 9}));
    EXPECT_EQ(layouts[rank].per_layer[0].experts, kExperts[rank]);
    EXPECT_EQ(layouts[rank].per_layer[0].expert_ffn, (Range{0, 1536}));
    EXPECT_THAT(layouts[rank].tp_ranks, ElementsAre(rank));
    EXPECT_THAT(layouts[rank].stage_ranks, ElementsAre(0, 1, 2));
  }
}

// tp=2,ep=4: two replicas of attention, whole experts; tp=4,ep=2: experts of two slices.
TEST(LayoutTest, TensorAndExpertParallel) {
  auto layouts = LayoutsOf({.tp = 2, .ep = 4}, SmallMoe(), 32);
  EXPECT_THAT(layouts[3].tp_ranks, ElementsAre(2, 3));
  EXPECT_EQ(layouts[3].tp_index, 1u);
  EXPECT_EQ(layouts[3].per_layer[0].heads, layouts[1].per_layer[0].heads);
  EXPECT_EQ(layouts[3].per_layer[0].experts, (Range{6, 8}));
  layouts = LayoutsOf({.tp = 4, .ep = 2}, SmallMoe(), 32);
  EXPECT_THAT(layouts[3].tp_ranks, ElementsAre(0, 1, 2, 3));
  EXPECT_EQ(layouts[1].per_layer[0].experts, (Range{0, 4}));
  EXPECT_EQ(layouts[1].per_layer[0].expert_ffn, (Range{768, 1536}));
  EXPECT_EQ(layouts[2].per_layer[0].experts, (Range{4, 8}));
  EXPECT_EQ(layouts[2].per_layer[0].expert_ffn, (Range{0, 768}));
}

// Two groups of two ranks, each with a copy of what follows from its tokens alone; the experts are
// spread over all four.
TEST(LayoutTest, DataParallelGroups) {
  ModelSpec spec = SmallMoe();
  std::get<MoeFfn>(spec.layers[0].ffn).shared_intermediate_size = 64;
  const auto layouts = LayoutsOf({.pp = 2, .dp = 2, .tp = 2, .ep = 4}, spec, 32);
  ASSERT_EQ(layouts.size(), 8u);
  for (uint32_t rank = 0; rank < 4; ++rank) {
    const RankLayout& layout = layouts[rank];
    SCOPED_TRACE(rank);
    EXPECT_EQ(layout.dp_index, rank / 2);
    EXPECT_EQ(layout.group_index, rank % 2);
    EXPECT_THAT(layout.group_ranks, ElementsAre(rank / 2 * 2, rank / 2 * 2 + 1));
    EXPECT_THAT(layout.tp_ranks, ElementsAre(rank / 2 * 2, rank / 2 * 2 + 1));
    EXPECT_THAT(layout.stage_ranks, ElementsAre(0, 1, 2, 3));
    EXPECT_EQ(layout.vocab, (rank % 2 == 0 ? Range{0, 24576} : Range{24576, 49152}));
    EXPECT_EQ(layout.per_layer[0].heads, (rank % 2 == 0 ? Range{0, 6} : Range{6, 9}));
    EXPECT_EQ(layout.per_layer[0].ffn, (rank % 2 == 0 ? Range{0, 32} : Range{32, 64}));
    EXPECT_EQ(layout.per_layer[0].experts, (Range{2 * rank, 2 * rank + 2}));
  }
  EXPECT_THAT(layouts[7].group_ranks, ElementsAre(6, 7));
  EXPECT_EQ(layouts[7].dp_index, 1u);
}

// Whether the experts are sliced over the groups or attention has replicas in one.
TEST(LayoutTest, DataParallelGroupsOfSlicesAndReplicas) {
  auto layouts = LayoutsOf({.dp = 3}, SmallMoe(), 32);
  EXPECT_EQ(layouts[2].dp_index, 2u);
  EXPECT_THAT(layouts[2].group_ranks, ElementsAre(2));
  EXPECT_EQ(layouts[2].vocab, (Range{0, 49152}));
  EXPECT_EQ(layouts[2].per_layer[0].heads, (Range{0, 9}));
  EXPECT_EQ(layouts[2].per_layer[0].experts, (Range{0, 8}));
  EXPECT_EQ(layouts[2].per_layer[0].expert_ffn, (Range{1024, 1536}));
  layouts = LayoutsOf({.dp = 2, .ep = 8}, SmallMoe(), 32);
  EXPECT_EQ(layouts[5].dp_index, 1u);
  EXPECT_EQ(layouts[5].group_index, 1u);
  EXPECT_THAT(layouts[5].group_ranks, ElementsAre(4, 5, 6, 7));
  EXPECT_THAT(layouts[5].tp_ranks, ElementsAre(5));
  EXPECT_EQ(layouts[5].vocab, (Range{12288, 24576}));
  EXPECT_EQ(layouts[5].per_layer[0].experts, (Range{5, 6}));
}

TEST(LayoutTest, PipelineStages) {
  const auto layouts = LayoutsOf({.pp = 2, .tp = 2}, SmallMoe(), 32);
  EXPECT_EQ(layouts[0].layers, (Range{0, 15}));
  EXPECT_EQ(layouts[3].layers, (Range{15, 30}));
  EXPECT_TRUE(layouts[1].first_stage);
  EXPECT_FALSE(layouts[1].last_stage);
  EXPECT_TRUE(layouts[3].last_stage);
  EXPECT_EQ(layouts[1].next_stage_rank, 3u);
  EXPECT_FALSE(layouts[1].previous_stage_rank.has_value());
  EXPECT_EQ(layouts[3].previous_stage_rank, 1u);
  EXPECT_FALSE(layouts[3].next_stage_rank.has_value());
  EXPECT_EQ(layouts[3].first_stage_rank, 1u);
  EXPECT_EQ(layouts[1].last_stage_rank, 3u);
  EXPECT_THAT(layouts[3].stage_ranks, ElementsAre(2, 3));
  EXPECT_EQ(layouts[3].vocab, layouts[1].vocab);
}

// A dense model this small is a fifth embedding: untied, four stages of equal bytes are not four
// stages of equal layers.
TEST(LayoutTest, StagesAreBalancedByWeight) {
  ModelSpec spec = SmallDense();
  spec.tied_embeddings = false;
  const auto layouts = LayoutsOf({.pp = 4}, spec, 1);
  const uint64_t embedding = 49152 * 576;
  const uint64_t layer = 2 * 576 * 576 + 2 * 192 * 576 + 3 * 1536 * 576;
  uint64_t heaviest = 0;
  for (const RankLayout& layout : layouts) {
    const bool outer = layout.first_stage || layout.last_stage;
    heaviest = std::max(heaviest, layout.layers.size() * layer + (outer ? embedding : 0));
  }
  // By count it would be 8 layers and an embedding.
  EXPECT_LT(heaviest, 7 * layer + embedding);
  EXPECT_LT(layouts[0].layers.size(), layouts[1].layers.size());
}

TEST(LayoutTest, QuantBlockFollowsTheStoredType) {
  EXPECT_EQ(QuantBlockOf(DType::kQ4_1), 32u);
  EXPECT_EQ(QuantBlockOf(DType::kQ6_K), 32u);
  EXPECT_EQ(QuantBlockOf(DType::kF8E4M3), 1u);
  EXPECT_EQ(QuantBlockOf(DType::kBF16), 1u);
  for (const DType experts_only : {DType::kF4E2M1, DType::kOffsetI4}) {
    EXPECT_TRUE(OnlyExperts(experts_only));
    EXPECT_EQ(QuantBlockOf(experts_only), QuantBlock(32, 1));
  }
  EXPECT_FALSE(OnlyExperts(DType::kQ4_1));
}

// gpt-oss's 2880 intermediate columns are 90 groups of 32: four ranks have 22, 22, 23, 23 of them.
// Nothing else is cut at groups.
TEST(LayoutTest, ExpertsInGroupsAreSharedUnevenly) {
  ModelSpec spec = SmallMoe();
  for (LayerSpec& layer : spec.layers) {
    std::get<GroupedQueryAttention>(layer.attention).head_dim = 12;
    auto& moe = std::get<MoeFfn>(layer.ffn);
    moe.intermediate_size = 2880;
    moe.shared_intermediate_size = 42;
  }
  const QuantBlock block = QuantBlockOf(DType::kF4E2M1);
  const ParallelPlan plan{.tp = 4};
  ASSERT_EQ(ValidatePlan(plan, spec, block), absl::OkStatus());
  uint64_t begin = 0;
  for (uint32_t rank = 0; rank < 4; ++rank) {
    const RankLayout layout = LayoutOf(plan, spec, rank, block);
    const Range columns = layout.per_layer[0].expert_ffn;
    EXPECT_EQ(columns.begin, begin);
    EXPECT_EQ(columns.size(), (rank < 2 ? 22u : 23u) * 32);
    EXPECT_EQ(layout.per_layer[0].ffn.size(), rank < 2 ? 11u : 10u);
    begin = columns.end;
  }
  EXPECT_EQ(begin, 2880u);
  std::get<MoeFfn>(spec.layers[1].ffn).intermediate_size = 2890;
  EXPECT_FALSE(ValidatePlan(plan, spec, block).ok());
}

TEST(LayoutTest, VocabularySmallerThanSixtyFourRowsARank) {
  ModelSpec spec = SmallMoe();
  spec.vocab_size = 130;
  uint64_t next = 0;
  for (const RankLayout& layout : LayoutsOf({.ep = 8}, spec, 1)) {
    EXPECT_EQ(layout.vocab.begin, next);
    EXPECT_GT(layout.vocab.size(), 0u);
    next = layout.vocab.end;
  }
  EXPECT_EQ(next, 130u);
}

// Without experts the groups are copies of the model that share nothing.
TEST(ValidatePlanTest, TakesDataParallelGroupsOfAnyModel) {
  EXPECT_TRUE(ValidatePlan({.dp = 16}, SmallDense(), 1).ok());
  EXPECT_TRUE(ValidatePlan({.dp = 2, .tp = 2, .ep = 4}, SmallMoe(), 32).ok());
  EXPECT_EQ(ValidatePlan({.dp = 6}, SmallMoe(), 512).message(),
            "dp=6,tp=1 with ep=1 cuts each expert of 1536 columns (3 quantised blocks of 512) into "
            "6 parts");
  ModelSpec small = SmallMoe();
  small.vocab_size = 3;
  EXPECT_TRUE(ValidatePlan({.dp = 2, .tp = 2}, small, 1).ok());
  EXPECT_EQ(ValidatePlan({.dp = 2, .ep = 8}, small, 1).message(),
            "4 ranks per data-parallel group exceed the model's 3 vocabulary rows");
}

// Its pieces may be fewer than the ranks, but none may cut a quantised block.
TEST(ValidatePlanTest, SharedExpertsAreDividedOverTheStage) {
  ModelSpec spec{.family = "glm4_moe", .hidden_size = 40, .vocab_size = 512};
  const GroupedQueryAttention attention{.num_heads = 4, .num_kv_heads = 4, .head_dim = 32};
  MoeFfn moe{
      .num_experts = 8, .top_k = 2, .intermediate_size = 128, .shared_intermediate_size = 64};
  spec.layers.assign(1, {.attention = attention, .ffn = moe});
  const ParallelPlan plan{.tp = 4, .ep = 4};
  ASSERT_TRUE(ValidatePlan(plan, spec, 32).ok());
  const std::vector<RankLayout> layouts = LayoutsOf(plan, spec, 32);
  EXPECT_EQ(layouts[0].per_layer[0].ffn, (Range{0, 32}));
  EXPECT_EQ(layouts[1].per_layer[0].ffn, (Range{32, 64}));
  EXPECT_EQ(layouts[2].per_layer[0].ffn.size(), 0u);
  EXPECT_EQ(layouts[3].per_layer[0].ffn.size(), 0u);
  std::get<MoeFfn>(spec.layers[0].ffn).shared_intermediate_size = 48;
  EXPECT_EQ(ValidatePlan(plan, spec, 32).message(),
            "4 ranks per stage cut the shared expert of 48 columns, which is not whole quantised "
            "blocks of 32");
  EXPECT_TRUE(ValidatePlan({}, spec, 32).ok());
}

// Of several types in one checkpoint those count that are cut by columns, routed experts for
// themselves.
TEST(QuantBlockTest, MatricesThatAreCutByColumnsDecide) {
  std::vector<WeightBinding> bindings = {
      {.role = WeightRole::kEmbedding, .stored = DType::kF16},
      {.role = WeightRole::kQuery, .layer = 0, .stored = DType::kQ8_0},
      {.role = WeightRole::kOutput, .layer = 0, .stored = DType::kF16},
      {.role = WeightRole::kDown, .layer = 0, .expert = 3, .stored = DType::kBF16}};
  EXPECT_EQ(QuantBlockOf(bindings), QuantBlock(1));
  bindings[2].stored = DType::kQ8_0;
  EXPECT_EQ(QuantBlockOf(bindings), QuantBlock(1, 32));
  bindings[3].stored = DType::kQ4_K;
  EXPECT_EQ(QuantBlockOf(bindings), QuantBlock(32));
  bindings[2].stored = DType::kF8E4M3;
  EXPECT_EQ(QuantBlockOf(bindings), QuantBlock(32, 1));
}

TEST(ValidatePlanTest, LatentAttentionSplitsByHeads) {
  ModelSpec spec{.family = "deepseek_v3", .hidden_size = 40, .vocab_size = 64};
  const LatentAttention attention{.num_heads = 3,
                                  .kv_lora_rank = 32,
                                  .nope_head_dim = 8,
                                  .rope_head_dim = 8,
                                  .value_head_dim = 12};
  spec.layers.assign(2, {.attention = attention, .ffn = DenseFfn{.intermediate_size = 64}});
  EXPECT_TRUE(ValidatePlan({.tp = 2}, spec).ok());
  EXPECT_EQ(ValidatePlan({.tp = 4}, spec).message(), "tp=4 exceeds the model's 3 attention heads");
  EXPECT_EQ(ValidatePlan({.tp = 2}, spec, 32).message(),
            "tp=2 cuts the output projection between heads of 12 columns, inside quantised blocks "
            "of 32");
}

// Each query head reads the KV head of its group; linear attention has no KV heads.
void ExpectHeadsKeepTheirGroups(const AttentionSpec& attention, const RankLayout::Layer& layer) {
  if (std::holds_alternative<LightningAttention>(attention) ||
      std::holds_alternative<GatedDeltaNet>(attention)) {
    ASSERT_EQ(layer.kv_heads.size(), 0u);
    return;
  }
  const auto* grouped = std::get_if<GroupedQueryAttention>(&attention);
  const uint64_t group = NumHeads(attention) / (grouped ? grouped->num_kv_heads : 1);
  ASSERT_EQ(layer.heads.size() % layer.kv_heads.size(), 0u);
  const uint64_t local_group = layer.heads.size() / layer.kv_heads.size();
  for (uint64_t head = 0; head < layer.heads.size(); ++head) {
    ASSERT_EQ((layer.heads.begin + head) / group, layer.kv_heads.begin + head / local_group);
  }
}

// What the engine relies on: no rank without heads, columns or rows; local query head i reads local
// KV head i / (heads / kv_heads); every member of a group has the same list.
TEST(LayoutTest, HoldsForRandomModelsAndPlans) {
  RandomModels random(20261123);
  uint32_t valid = 0;
  for (int round = 0; round < 3000; ++round) {
    const ModelSpec spec = random.Spec();
    const ParallelPlan plan = random.Plan();
    const uint32_t quant_block = random.Coin() ? 32 : 1;
    if (!ValidatePlan(plan, spec, quant_block).ok()) continue;
    ++valid;
    SCOPED_TRACE(plan.ToString());
    for (const RankLayout& layout : LayoutsOf(plan, spec, quant_block)) {
      ASSERT_EQ(layout.per_layer.size(), layout.layers.size());
      ASSERT_GT(layout.layers.size(), 0u);
      ASSERT_GT(layout.vocab.size(), 0u);
      ASSERT_EQ(layout.tp_ranks[layout.tp_index], layout.rank);
      ASSERT_EQ(layout.stage_ranks[layout.rank_in_stage], layout.rank);
      ASSERT_EQ(layout.group_ranks[layout.group_index], layout.rank);
      ASSERT_EQ(layout.group_ranks.size() * plan.dp, layout.stage_ranks.size());
      ASSERT_EQ(layout.rank_in_stage / layout.group_ranks.size(), layout.dp_index);
      ASSERT_GE(layout.tp_ranks.front(), layout.group_ranks.front());
      ASSERT_LE(layout.tp_ranks.back(), layout.group_ranks.back());
      for (size_t i = 0; i < layout.per_layer.size(); ++i) {
        const RankLayout::Layer& layer = layout.per_layer[i];
        const LayerSpec& parts = spec.layers[layout.layers.begin + i];
        ASSERT_GT(layer.heads.size(), 0u);
        ExpectHeadsKeepTheirGroups(parts.attention, layer);
        const bool moe = std::holds_alternative<MoeFfn>(parts.ffn);
        ASSERT_EQ(layer.experts.size() > 0, moe);
        ASSERT_EQ(layer.expert_ffn.size() > 0, moe);
        // A shared expert may leave a rank without a piece.
        if (!moe) {
          ASSERT_GT(layer.ffn.size(), 0u);
        }
        ASSERT_EQ(layer.expert_ffn.begin % quant_block, 0u);
        ASSERT_EQ(layer.ffn.end % quant_block, 0u);
      }
    }
  }
  EXPECT_GT(valid, 500u);
}

}  // namespace
}  // namespace essor::model
