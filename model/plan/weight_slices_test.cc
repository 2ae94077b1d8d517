#include "model/plan/weight_slices.h"

#include <map>
#include <variant>

#include "gtest/gtest.h"
#include "model/plan/random_models.h"
#include "model/spec/logical_weights.h"

namespace essor::model {
namespace {

// Whether ranks cut the weight by columns: vectors are [1, n], and these two take a rank's heads or
// intermediates as inputs.
bool CutByColumns(const WeightBinding& weight) {
  return weight.role == WeightRole::kOutput || weight.role == WeightRole::kDown ||
         (weight.rows == 1 && weight.role != WeightRole::kRouter);
}

// Adds one to each row (or column) that `part` holds; the other side must be whole.
void Count(const WeightBinding& weight, const WeightPart& part, std::vector<uint32_t>& held) {
  const bool by_columns = CutByColumns(weight);
  const Range cut = by_columns ? part.cols : part.rows;
  const Range whole = by_columns ? part.rows : part.cols;
  ASSERT_LT(cut.begin, cut.end);
  ASSERT_LE(cut.end, held.size());
  ASSERT_EQ(whole, (Range{0, by_columns ? weight.rows : weight.cols}));
  for (uint64_t i = cut.begin; i < cut.end; ++i) ++held[i];
}

// Of an expert, or of a shared expert: these are divided over the stage or the group.
bool IsExperts(const ModelSpec& spec, const WeightBinding& weight) {
  if (weight.expert >= 0) return true;
  return IsFfnMatrix(weight.role) &&
         std::holds_alternative<MoeFfn>(spec.layers[static_cast<size_t>(weight.layer)].ffn);
}

bool IsFullWidthNorm(const ModelSpec& spec, const WeightBinding& weight) {
  if (weight.role != WeightRole::kQueryNorm && weight.role != WeightRole::kKeyNorm) return false;
  const AttentionSpec& attention = spec.layers[static_cast<size_t>(weight.layer)].attention;
  return std::get<GroupedQueryAttention>(attention).qk_norm == QkNorm::kFullWidth;
}

// How often the KV head of row (column) `i` is held: ranks above the number of KV heads share them.
uint32_t ExpectedOfKvHead(const ParallelPlan& plan, const ModelSpec& spec,
                          const WeightBinding& weight, uint64_t i) {
  const uint32_t replicas = plan.RanksPerStage() / plan.tp;
  const auto& attention =
      std::get<GroupedQueryAttention>(spec.layers[static_cast<size_t>(weight.layer)].attention);
  if (plan.tp <= attention.num_kv_heads) return replicas;
  const uint64_t head = i / attention.head_dim;
  const bool one_more = head < plan.tp % attention.num_kv_heads;
  return (plan.tp / attention.num_kv_heads + (one_more ? 1 : 0)) * replicas;
}

// How often the plan says that row (column) `i` of `weight` is held.
uint32_t Expected(const ParallelPlan& plan, const ModelSpec& spec, const WeightBinding& weight,
                  uint64_t i) {
  const uint32_t ranks = plan.RanksPerStage();
  switch (weight.role) {
    case WeightRole::kEmbedding:
      return spec.tied_embeddings && plan.pp > 1 ? 2 * plan.dp : plan.dp;
    case WeightRole::kHead:
      return plan.dp;
    case WeightRole::kKey:
    case WeightRole::kValue:
    case WeightRole::kKeyBias:
    case WeightRole::kValueBias:
      return ExpectedOfKvHead(plan, spec, weight, i);
    case WeightRole::kKeyNorm:
      return IsFullWidthNorm(spec, weight) ? ExpectedOfKvHead(plan, spec, weight, i) : ranks;
    case WeightRole::kQueryNorm:
      return IsFullWidthNorm(spec, weight) ? ranks / plan.tp : ranks;
    case WeightRole::kQuery:
    case WeightRole::kQueryBias:
    case WeightRole::kOutput:
    case WeightRole::kOutputBias:
    case WeightRole::kSinks:
    case WeightRole::kKeyUp:
    case WeightRole::kValueUp:
    case WeightRole::kLinearInput:
    case WeightRole::kDeltaGates:
    case WeightRole::kQueryFilter:
    case WeightRole::kKeyFilter:
    case WeightRole::kValueFilter:
    case WeightRole::kDecayRate:
    case WeightRole::kDecayBias:
    case WeightRole::kOutputGate:
      return ranks / plan.tp;
    case WeightRole::kLinearNorm:  // over all heads, or the same for each
      return std::holds_alternative<LightningAttention>(
                 spec.layers[static_cast<size_t>(weight.layer)].attention)
                 ? ranks / plan.tp
                 : ranks;
    case WeightRole::kGateBias:
    case WeightRole::kUpBias:
    case WeightRole::kDownBias:
      return 1;
    case WeightRole::kGate:
    case WeightRole::kUp:
    case WeightRole::kDown:
      if (weight.expert >= 0) return 1;
      return IsExperts(spec, weight) ? plan.dp : ranks / plan.tp;
    default:
      return ranks;
  }
}

TEST(WeightSlicesTest, CoverEveryWeightAsOftenAsThePlanSays) {
  RandomModels random(4);
  uint32_t valid = 0;
  for (int round = 0; round < 1000; ++round) {
    const ModelSpec spec = random.Spec();
    const ParallelPlan plan = random.Plan();
    const uint32_t quant_block = random.Coin() ? 32 : 1;
    if (!ValidatePlan(plan, spec, quant_block).ok()) continue;
    ++valid;
    SCOPED_TRACE(plan.ToString());
    const std::vector<WeightBinding> weights = LogicalWeights(spec);
    const std::vector<RankLayout> layouts = LayoutsOf(plan, spec, quant_block);
    for (const WeightBinding& weight : weights) {
      std::vector<uint32_t> held(CutByColumns(weight) ? weight.cols : weight.rows);
      for (const RankLayout& layout : layouts) {
        const auto part = PartOf(layout, spec, weight);
        if (part.has_value()) Count(weight, *part, held);
      }
      for (size_t i = 0; i < held.size(); ++i) {
        ASSERT_EQ(held[i], Expected(plan, spec, weight, i))
            << "role " << static_cast<int>(weight.role) << " layer " << weight.layer << " expert "
            << weight.expert << " at " << i;
      }
    }
  }
  EXPECT_GT(valid, 250u);
}

// Ranks with the same place in their attention group hold the same attention; so a replica's
// partial sums are the same bits.
TEST(WeightSlicesTest, ReplicasAreIdentical) {
  RandomModels random(5);
  for (int round = 0; round < 200; ++round) {
    const ModelSpec spec = random.Spec();
    const ParallelPlan plan = random.Plan();
    if (!ValidatePlan(plan, spec).ok()) continue;
    const std::vector<RankLayout> layouts = LayoutsOf(plan, spec, 1);
    std::map<std::pair<uint32_t, uint32_t>, const RankLayout*> first;
    for (const RankLayout& layout : layouts) {
      const RankLayout* twin =
          first.try_emplace({layout.stage, layout.tp_index}, &layout).first->second;
      for (const WeightBinding& weight : LogicalWeights(spec)) {
        if (weight.layer < 0 || IsExperts(spec, weight)) continue;
        ASSERT_EQ(PartOf(layout, spec, weight), PartOf(*twin, spec, weight));
      }
    }
  }
}

// Uneven heads: of the three ranks the first has two.
TEST(WeightSlicesTest, LatentAttentionGivesEachRankItsHeadsAndTheWholeLatent) {
  const LatentAttention attention{.num_heads = 4,
                                  .q_lora_rank = 24,
                                  .kv_lora_rank = 16,
                                  .nope_head_dim = 8,
                                  .rope_head_dim = 6,
                                  .value_head_dim = 12};
  ModelSpec spec{.family = "deepseek_v3", .hidden_size = 40, .vocab_size = 64};
  spec.layers.assign(1, {.attention = attention, .ffn = DenseFfn{.intermediate_size = 48}});
  const RankLayout layout = LayoutOf({.tp = 3}, spec, 1, 1);
  ASSERT_EQ(layout.per_layer[0].heads, (Range{2, 3}));
  std::map<WeightRole, std::vector<WeightSlice>> held;
  for (const WeightSlice& slice : SlicesOf(layout, spec, LogicalWeights(spec))) {
    held[slice.binding.role].push_back(slice);
  }
  const auto part = [&](WeightRole role) {
    EXPECT_EQ(held[role].size(), 1u);
    return WeightPart{held[role].at(0).rows, held[role].at(0).cols};
  };
  EXPECT_EQ(part(WeightRole::kQueryDown), (WeightPart{{0, 24}, {0, 40}}));
  EXPECT_EQ(part(WeightRole::kQueryDownNorm), (WeightPart{{0, 1}, {0, 24}}));
  EXPECT_EQ(part(WeightRole::kQuery), (WeightPart{{28, 42}, {0, 24}}));
  EXPECT_EQ(part(WeightRole::kLatentDown), (WeightPart{{0, 16}, {0, 40}}));
  EXPECT_EQ(part(WeightRole::kRopeKey), (WeightPart{{0, 6}, {0, 40}}));
  EXPECT_EQ(part(WeightRole::kKeyUp), (WeightPart{{0, 16}, {0, 8}}));
  EXPECT_EQ(part(WeightRole::kValueUp), (WeightPart{{0, 12}, {0, 16}}));
  EXPECT_EQ(held[WeightRole::kKeyUp][0].binding.head, 2);
  EXPECT_EQ(part(WeightRole::kOutput), (WeightPart{{0, 40}, {24, 36}}));
}

// A draft layer like the last one is cut like it, on the last stage alone.
TEST(WeightSlicesTest, DraftLayersAreCutLikeOthersOnTheLastStage) {
  RandomModels random(12);
  for (int round = 0; round < 100; ++round) {
    ModelSpec spec = random.Spec();
    spec.draft_layers = {spec.layers.back()};
    const auto last = static_cast<uint32_t>(spec.layers.size()) - 1;
    const ParallelPlan plan = random.Plan();
    if (!ValidatePlan(plan, spec).ok()) continue;
    for (const RankLayout& layout : LayoutsOf(plan, spec, 1)) {
      ASSERT_EQ(layout.per_draft_layer.size(), layout.last_stage ? 1u : 0u);
      ASSERT_LE(layout.layers.end, spec.layers.size());
      for (WeightBinding weight : LayerWeights(spec, last + 1)) {
        const auto part = PartOf(layout, spec, weight);
        if (!layout.last_stage) {
          ASSERT_FALSE(part.has_value());
        } else if (weight.role == WeightRole::kEmbedding || weight.role == WeightRole::kHead) {
          ASSERT_EQ(part->rows, layout.vocab);
        } else if (weight.role == WeightRole::kDraftInput) {
          ASSERT_EQ(part->rows.size() * part->cols.size(), weight.rows * weight.cols);
        } else {
          weight.layer = static_cast<int32_t>(last);
          ASSERT_EQ(part, PartOf(layout, spec, weight));
        }
      }
    }
  }
}

TEST(WeightSlicesTest, KeepTheOrderOfTheBindingsAndSkipTheRest) {
  RandomModels random(6);
  ModelSpec spec = random.Spec();
  spec.tied_embeddings = true;
  const auto weights = LogicalWeights(spec);
  const RankLayout layout = LayoutOf({.pp = 1, .tp = 1}, spec, 0, 1);
  const auto slices = SlicesOf(layout, spec, weights);
  ASSERT_EQ(slices.size(), weights.size());
  for (size_t i = 0; i < slices.size(); ++i) {
    EXPECT_EQ(slices[i].binding.role, weights[i].role);
    EXPECT_EQ(slices[i].rows, (Range{0, weights[i].rows}));
    EXPECT_EQ(slices[i].cols, (Range{0, weights[i].cols}));
  }
}

}  // namespace
}  // namespace essor::model
