#include "model/plan/memory_plan.h"

#include <string>
#include <variant>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/plan/random_models.h"
#include "model/plan/scratch_widths.h"
#include "model/spec/logical_weights.h"

namespace essor::model {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

ModelSpec SmallMoe() {
  ModelSpec spec{.family = "mixtral",
                 .hidden_size = 576,
                 .vocab_size = 49152,
                 .max_context_tokens = 8192,
                 .tied_embeddings = true};
  const GroupedQueryAttention attention{
      .num_heads = 9, .num_kv_heads = 3, .head_dim = 64, .rope = {.rotary_dim = 64}};
  spec.layers.assign(30, {.attention = attention,
                          .ffn = MoeFfn{.num_experts = 8, .top_k = 2, .intermediate_size = 1536}});
  return spec;
}

WeightSlice SliceOf(WeightRole role, uint64_t rows, uint64_t cols) {
  return {
      .binding = {.role = role, .rows = rows, .cols = cols}, .rows = {0, rows}, .cols = {0, cols}};
}

TEST(PackedBytesTest, RowsInTilesOf32) {
  const WeightSlice slice = SliceOf(WeightRole::kQuery, 33, 64);
  EXPECT_EQ(PackedBytes(slice, DType::kBF16, false), 64u * 64 * 2);
  EXPECT_EQ(PackedBytes(slice, DType::kF32, false), 64u * 64 * 4);
  EXPECT_EQ(PackedBytes(slice, DType::kQ8_0, false), 64u * 2 * 34);
  EXPECT_EQ(PackedBytes(slice, DType::kQ4_1, false), 64u * 2 * 20);
  EXPECT_EQ(PackedBytes(slice, DType::kQ4_1, true), 64u * 64 * 4);
  EXPECT_EQ(PackedBytes(slice, DType::kQ6_K, false), 64u * 64 * 2);
  EXPECT_EQ(PackedBytes(SliceOf(WeightRole::kUp, 32, 5), DType::kBF16, false), 32u * 6 * 2);
}

TEST(PackedBytesTest, VectorsAndRouterStayInFloat32) {
  EXPECT_EQ(PackedBytes(SliceOf(WeightRole::kFfnNorm, 1, 576), DType::kQ4_1, false), 576u * 4);
  EXPECT_EQ(PackedBytes(SliceOf(WeightRole::kRouter, 8, 576), DType::kQ4_1, false), 32u * 576 * 4);
}

// Transposed at load time, across the blocks.
TEST(PackedBytesTest, KeysUpAreNeverQuantised) {
  EXPECT_EQ(PackedBytes(SliceOf(WeightRole::kKeyUp, 512, 128), DType::kQ8_0, false),
            512u * 128 * 2);
  EXPECT_EQ(PackedBytes(SliceOf(WeightRole::kKeyUp, 512, 128), DType::kF32, false), 512u * 128 * 4);
  EXPECT_EQ(PackedBytes(SliceOf(WeightRole::kValueUp, 128, 512), DType::kQ8_0, false),
            128u * 16 * 34);
}

// DeepSeek V3: 576 values in each of 61 layers, whatever tp is, and no second copy for values.
TEST(MemoryPlanTest, ALatentIsCachedOnceAToken) {
  ModelSpec spec{.family = "deepseek_v3", .hidden_size = 7168, .vocab_size = 129280};
  const LatentAttention attention{.num_heads = 128,
                                  .q_lora_rank = 1536,
                                  .kv_lora_rank = 512,
                                  .nope_head_dim = 128,
                                  .rope_head_dim = 64,
                                  .value_head_dim = 128};
  spec.layers.assign(61, {.attention = attention, .ffn = DenseFfn{.intermediate_size = 18432}});
  for (const uint32_t tp : {1u, 8u}) {
    const RankLayout layout = LayoutOf({.tp = tp}, spec, tp - 1, 1);
    EXPECT_EQ(KvBytesPerToken(layout, spec, KvType::kBFloat16), 70272u);
    EXPECT_EQ(KvBytesPerToken(layout, spec, KvType::kFloat32), 140544u);
    // The 64 rotated values stay bfloat16.
    EXPECT_EQ(KvBytesPerToken(layout, spec, KvType::kFp8), 61u * (512 + 2 * 64));
    EXPECT_EQ(KvBytesPerToken(layout, spec, KvType::kInt8), 61u * (512 + 2 * 64 + 4));
  }
}

// The way without a checkpoint counts what listing every slice counts.
TEST(MemoryPlanTest, WeightsOfTheSpecEqualThoseOfTheSlices) {
  RandomModels random(9);
  for (int round = 0; round < 100; ++round) {
    ModelSpec spec = random.Spec();
    spec.draft_layers.assign(static_cast<size_t>(round % 3), spec.layers.back());
    const ParallelPlan plan = random.Plan();
    if (!ValidatePlan(plan, spec, 32).ok()) continue;
    for (const RankLayout& layout : LayoutsOf(plan, spec, 32)) {
      const auto slices = SlicesOf(layout, spec, LogicalWeights(spec));
      MemoryRequest request{.spec = &spec,
                            .layout = &layout,
                            .slices = &slices,
                            .stored = DType::kBF16,
                            .memory_bytes = uint64_t{1} << 50};
      const auto listed = PlanMemory(request);
      request.slices = nullptr;
      const auto counted = PlanMemory(request);
      ASSERT_TRUE(listed.ok() && counted.ok()) << listed.status() << counted.status();
      ASSERT_EQ(listed->weight_bytes, counted->weight_bytes);
    }
  }
}

TEST(MemoryPlanTest, TypesOfTheCheckpointWin) {
  std::vector<WeightSlice> slices = {SliceOf(WeightRole::kQuery, 32, 64),
                                     SliceOf(WeightRole::kEmbedding, 32, 64)};
  slices[1].binding.stored = DType::kQ8_0;
  EXPECT_EQ(WeightBytes(slices, DType::kBF16, false), 32u * 64 * 2 + 32u * 2 * 34);
}

TEST(MemoryPlanTest, SmallMoeOnOneRank) {
  const ModelSpec spec = SmallMoe();
  const RankLayout layout = LayoutOf({}, spec, 0, 1);
  const ServingLimits limits{.max_sequences = 4, .max_context_tokens = 8192};
  const auto plan = PlanMemory(
      {.spec = &spec, .layout = &layout, .limits = limits, .memory_bytes = 8'000'000'000});
  ASSERT_TRUE(plan.ok()) << plan.status();
  const uint64_t layer = 2 * (2 * 576 * 576 + 2 * 192 * 576)  // attention
                         + 2 * 576 * 4                        // norms
                         + 32 * 576 * 4                       // router, rows rounded up
                         + 8 * 3 * 1536 * 576 * 2;            // experts
  EXPECT_EQ(plan->weight_bytes, 49152u * 576 * 2 + 30 * layer + 576 * 4);
  // 30 layers x (K and V) x 3 heads x 64 x 2 bytes x 16 tokens.
  EXPECT_EQ(plan->block_bytes, 30u * 2 * 3 * 64 * 2 * 16);
  EXPECT_EQ(plan->capacity.num_blocks, 4u * 512);
  EXPECT_EQ(plan->kv_bytes, plan->capacity.num_blocks * plan->block_bytes);
  EXPECT_EQ(plan->exchange_bytes, 0u);
  EXPECT_EQ(plan->total_bytes(), plan->weight_bytes + plan->kv_bytes + plan->activation_bytes);
}

TEST(MemoryPlanTest, TypesOfTheCacheDifferInBytesAndScales) {
  const ModelSpec spec = SmallMoe();
  const RankLayout layout = LayoutOf({.tp = 2}, spec, 1, 1);
  EXPECT_EQ(KvBytesPerToken(layout, spec, KvType::kBFloat16), 30u * 2 * 64 * 2);
  EXPECT_EQ(KvBytesPerToken(layout, spec, KvType::kFloat32), 30u * 2 * 64 * 4);
  EXPECT_EQ(KvBytesPerToken(layout, spec, KvType::kFp8), 30u * 2 * 64);
  EXPECT_EQ(KvBytesPerToken(layout, spec, KvType::kInt8), 30u * 2 * (64 + 4));
}

// Latent, rotated key and index key, once for all heads, on every rank of a tensor-parallel group.
TEST(MemoryPlanTest, IndexKeysStandBesideTheLatents) {
  const LatentAttention attention{
      .num_heads = 4,
      .q_lora_rank = 24,
      .kv_lora_rank = 16,
      .nope_head_dim = 8,
      .rope_head_dim = 6,
      .value_head_dim = 12,
      .indexer = SparseIndexer{.num_heads = 2, .head_dim = 10, .top_k = 8}};
  ModelSpec spec{.family = "deepseek_v32", .hidden_size = 40, .vocab_size = 64};
  spec.layers.assign(3, {.attention = attention, .ffn = DenseFfn{.intermediate_size = 48}});
  for (const uint32_t tp : {1u, 2u}) {
    const RankLayout layout = LayoutOf({.tp = tp}, spec, tp - 1, 1);
    EXPECT_EQ(KvBytesPerToken(layout, spec, KvType::kBFloat16), 3u * (16 + 6 + 10) * 2);
    // Index keys are never quantised.
    EXPECT_EQ(KvBytesPerToken(layout, spec, KvType::kFp8), 3u * (16 + (6 + 10) * 2));
    EXPECT_EQ(KvBytesPerToken(layout, spec, KvType::kInt8), 3u * (4 + 16 + (6 + 10) * 2));
  }
  const WeightBinding weights{.role = WeightRole::kIndexWeights, .rows = 2, .cols = 40};
  EXPECT_EQ(PackedBytes({.binding = weights, .rows = {0, 2}, .cols = {0, 40}}, DType::kBF16, false),
            32u * 40 * 4);
}

TEST(MemoryPlanTest, UsesTheMemoryItHasButNoMore) {
  const ModelSpec spec = SmallMoe();
  const RankLayout layout = LayoutOf({.tp = 2}, spec, 0, 1);
  MemoryRequest request{.spec = &spec,
                        .layout = &layout,
                        .limits = {.max_sequences = 64, .max_context_tokens = 2048}};
  const uint64_t least = LeastBytes(request);
  request.memory_bytes = least;
  auto plan = PlanMemory(request);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->capacity.num_blocks, 128u);
  EXPECT_GT(plan->exchange_bytes, 0u);
  EXPECT_LE(plan->total_bytes(), least);

  request.memory_bytes = least + 10 * plan->block_bytes + 5;
  plan = PlanMemory(request);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->capacity.num_blocks, 138u);

  request.memory_bytes = least - 1000;
  plan = PlanMemory(request);
  EXPECT_EQ(plan.status().code(), absl::StatusCode::kResourceExhausted);
  const std::string message(plan.status().message());
  EXPECT_THAT(message,
              StartsWith("rank 0 needs 788.5 MB (703.1 MB weights, 31.5 MB KV cache for "));
  EXPECT_THAT(message, HasSubstr("one sequence of 2048 tokens, "));
  EXPECT_THAT(message, HasSubstr("1.0 kB more than the "));
}

TEST(MemoryPlanTest, ContextDefaultsToTheModels) {
  const ModelSpec spec = SmallMoe();
  const RankLayout layout = LayoutOf({}, spec, 0, 1);
  MemoryRequest request{.spec = &spec, .layout = &layout};
  const uint64_t least = LeastBytes(request);
  request.limits.max_context_tokens = 8192;
  EXPECT_EQ(LeastBytes(request), least);
}

// A group's vocabulary and head are copies; what passes between groups has room of its own.
TEST(MemoryPlanTest, DataParallelGroupsKeepCopiesAndRoomForExchanges) {
  const ModelSpec spec = SmallMoe();
  const ServingLimits limits{.max_step_tokens = 100, .max_context_tokens = 1024};
  const RankLayout sliced = LayoutOf({.tp = 2, .ep = 2}, spec, 0, 1);
  const RankLayout grouped = LayoutOf({.dp = 2, .ep = 2}, spec, 0, 1);
  EXPECT_EQ(ExpertExchangeSizesOf(spec, sliced, 100).rows, 0u);
  const ExpertExchangeSizes sizes = ExpertExchangeSizesOf(spec, grouped, 100);
  EXPECT_EQ(sizes.rows, 100u);
  EXPECT_EQ(sizes.choices, 2u * 100 * 2);                       // top 2
  EXPECT_EQ(ExpertExchangeSizesOf(spec, grouped, 3).rows, 4u);  // a token of each rank
  ModelSpec dense = spec;
  for (LayerSpec& layer : dense.layers) layer.ffn = DenseFfn{.intermediate_size = 1536};
  EXPECT_EQ(ExpertExchangeSizesOf(dense, grouped, 100).rows, 0u);
  EXPECT_GE(ActivationBytes(grouped, spec, limits),
            ActivationBytes(sliced, spec, limits) + 2 * 100 * 576 * 4);
  // Another group of two ranks beside those of vocabulary and heads, which now are alone.
  EXPECT_GT(ExchangeBytes(grouped, spec, limits), uint64_t{2} * 100 * 576 * 4);
  EXPECT_LT(ExchangeBytes(grouped, spec, limits), ExchangeBytes(sliced, spec, limits));
}

TEST(MemoryPlanTest, RefusesLimitsOfZero) {
  const ModelSpec spec = SmallMoe();
  const RankLayout layout = LayoutOf({}, spec, 0, 1);
  EXPECT_EQ(
      PlanMemory({.spec = &spec, .layout = &layout, .limits = {.block_tokens = 0}}).status().code(),
      absl::StatusCode::kInvalidArgument);
}

// MiniMax-Text-01's layers of lightning attention: 64 heads of 128 x 128 floats, 4 MiB a layer and
// sequence, divided over tp; the KV cache is that of the other layers.
TEST(MemoryPlanTest, LinearAttentionKeepsStatesInsteadOfKeysAndValues) {
  ModelSpec spec = SmallMoe();
  const LightningAttention lightning{
      .num_heads = 64, .head_dim = 128, .slopes = std::vector<double>(64, 0.5)};
  for (uint32_t layer = 0; layer < 21; ++layer) spec.layers[layer].attention = lightning;
  const RankLayout layout = LayoutOf({.tp = 2}, spec, 0, 1);
  EXPECT_EQ(StateBytesPerSequence(layout, spec), 21u * (4 << 20) / 2);
  EXPECT_EQ(KvBytesPerToken(layout, spec, KvType::kBFloat16), 9u * 2 * 2 * 64 * 2)
      << "two of three KV heads";
  MemoryRequest request{.spec = &spec, .layout = &layout, .memory_bytes = uint64_t{64} << 30};
  request.limits.max_sequences = 5;
  const auto plan = PlanMemory(request);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->state_bytes, 5u * 21 * (4 << 20) / 2);
  EXPECT_EQ(plan->kv_bytes, plan->capacity.num_blocks * plan->block_bytes);

  request.memory_bytes = plan->weight_bytes;
  EXPECT_THAT(std::string(PlanMemory(request).status().message()),
              HasSubstr("220.2 MB states of 5 sequences"));
}

// A stage may have layers of linear attention alone: its blocks take no memory and do not limit.
TEST(MemoryPlanTest, StagesWithoutKvCacheHaveBlocksEnough) {
  ModelSpec spec = SmallMoe();
  const LightningAttention lightning{
      .num_heads = 9, .head_dim = 64, .slopes = std::vector<double>(9, 0.5)};
  for (size_t layer = 0; layer < 15; ++layer) spec.layers[layer].attention = lightning;
  const RankLayout layout = LayoutOf({.pp = 30}, spec, 0, 1);
  MemoryRequest request{.spec = &spec, .layout = &layout, .memory_bytes = uint64_t{64} << 30};
  auto plan = PlanMemory(request);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->capacity, (KvCapacity{.num_blocks = 8192u / 16 * 64, .num_snapshots = 64}));
  EXPECT_EQ(plan->kv_bytes, 0u);

  // In a model of such layers alone nobody needs blocks.
  for (LayerSpec& layer : spec.layers) layer.attention = lightning;
  plan = PlanMemory(request);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->capacity, (KvCapacity{.num_snapshots = 64}));
}

TEST(MemoryPlanTest, SnapshotsTakeAtMostAQuarterOfWhatIsLeft) {
  ModelSpec spec = SmallMoe();
  const LightningAttention lightning{
      .num_heads = 64, .head_dim = 128, .slopes = std::vector<double>(64, 0.5)};
  for (uint32_t layer = 0; layer < 21; ++layer) spec.layers[layer].attention = lightning;
  const RankLayout layout = LayoutOf({}, spec, 0, 1);
  MemoryRequest request{.spec = &spec, .layout = &layout, .memory_bytes = uint64_t{1} << 40};
  request.limits.max_sequences = 5;
  const auto rich = PlanMemory(request);
  ASSERT_TRUE(rich.ok()) << rich.status();
  EXPECT_EQ(rich->capacity.num_snapshots, 5u);
  EXPECT_EQ(rich->snapshot_bytes, rich->state_bytes);

  const uint64_t one = StateBytesPerSequence(layout, spec);
  const uint64_t fixed = rich->total_bytes() - rich->snapshot_bytes - rich->kv_bytes;
  request.memory_bytes = fixed + 4 * (3 * one) + 4;
  const auto some = PlanMemory(request);
  ASSERT_TRUE(some.ok()) << some.status();
  EXPECT_EQ(some->capacity.num_snapshots, 3u);
  EXPECT_LE(some->total_bytes(), request.memory_bytes);

  // The blocks of one sequence go first.
  request.memory_bytes = LeastBytes(request);
  const auto poor = PlanMemory(request);
  ASSERT_TRUE(poor.ok()) << poor.status();
  EXPECT_EQ(poor->capacity, (KvCapacity{.num_blocks = 512}));
}

// Every second layer reads 128 positions; a block of either kind is of 15 layers.
class WindowPlanTest : public ::testing::Test {
 protected:
  WindowPlanTest() : spec_(SmallMoe()), layout_(LayoutOf({}, spec_, 0, 1)) {
    for (size_t layer = 0; layer < spec_.layers.size(); layer += 2) {
      std::get<GroupedQueryAttention>(spec_.layers[layer].attention).sliding_window = 128;
    }
    request_ = {.spec = &spec_,
                .layout = &layout_,
                .limits = {.max_step_tokens = 512, .max_sequences = 64},
                .memory_bytes = uint64_t{1} << 40};
  }

  static constexpr uint64_t kBlockBytes = 15u * 2 * 3 * 64 * 2 * 16;
  // 64 windows of 9 blocks, and two steps of 33.
  static constexpr uint32_t kWanted = 64 * 9 + 2 * 33;

  ModelSpec spec_;
  RankLayout layout_;
  MemoryRequest request_;
};

TEST_F(WindowPlanTest, HoldsAllWindowsAndAsManyAgainWhereThereIsMemory) {
  const auto plan = PlanMemory(request_);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->block_bytes, kBlockBytes);
  EXPECT_EQ(plan->window_block_bytes, kBlockBytes);
  EXPECT_EQ(plan->capacity, (KvCapacity{.num_blocks = 64 * 512, .num_window_blocks = 2 * kWanted}));
  EXPECT_EQ(plan->kv_bytes, kBlockBytes * (64 * 512 + 2 * kWanted));
}

TEST_F(WindowPlanTest, DividesWhatThereIs) {
  // One sequence of 8192 tokens, its window and the chunks of two steps.
  const uint64_t least = LeastBytes(request_);
  request_.memory_bytes = least;
  auto plan = PlanMemory(request_);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->capacity, (KvCapacity{.num_blocks = 512, .num_window_blocks = 9 + 66}));

  // The other windows first, with at most half of what is left.
  request_.memory_bytes = least + 100 * kBlockBytes;
  plan = PlanMemory(request_);
  EXPECT_EQ(plan->capacity, (KvCapacity{.num_blocks = 562, .num_window_blocks = 75 + 50}));
  EXPECT_EQ(plan->total_bytes(), request_.memory_bytes);

  // When all windows are there, one more block of each kind in turn.
  const uint32_t windows = kWanted - 75;
  request_.memory_bytes = least + (2 * windows + 100) * kBlockBytes;
  plan = PlanMemory(request_);
  const uint32_t cached = (windows + 100) / 2;
  EXPECT_EQ(plan->capacity, (KvCapacity{.num_blocks = 512 + windows + 100 - cached,
                                        .num_window_blocks = kWanted + cached}));

  request_.memory_bytes = least - 1;
  EXPECT_EQ(PlanMemory(request_).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(WindowPlanTest, StagesTakeChunksOfMoreSteps) {
  const RankLayout first = LayoutOf({.pp = 3}, spec_, 0, 1);
  request_.layout = &first;
  const auto plan = PlanMemory(request_);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->capacity.num_window_blocks, 2u * (64 * 9 + 4 * 33));
}

// Sequences that cannot leave the window have as many blocks as they need, in one kind.
TEST_F(WindowPlanTest, AWindowOfTheWholeContextIsNone) {
  request_.limits.max_context_tokens = 128;
  const auto plan = PlanMemory(request_);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->capacity, (KvCapacity{.num_blocks = 64 * 8}));
  EXPECT_EQ(plan->block_bytes, 2 * kBlockBytes);

  request_.limits.max_context_tokens = 144;
  EXPECT_EQ(PlanMemory(request_)->capacity,
            (KvCapacity{.num_blocks = 64 * 9, .num_window_blocks = 64 * 9}));
}

TEST_F(WindowPlanTest, AModelOfWindowsAloneHasNoOtherBlocks) {
  for (LayerSpec& layer : spec_.layers) {
    auto& attention = std::get<GroupedQueryAttention>(layer.attention);
    attention.sliding_window = 0;
    attention.chunk_size = 128;
  }
  const auto plan = PlanMemory(request_);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->capacity, (KvCapacity{.num_window_blocks = 2 * kWanted}));
}

// Tables of cosines and sines: one for all layers that rotate alike, however they are mixed.
TEST(MemoryPlanTest, LayersThatRotateAlikeShareTheirTables) {
  ModelSpec spec = SmallMoe();
  const RankLayout layout = LayoutOf({}, spec, 0, 1);
  const uint64_t one_kind = ActivationBytes(layout, spec, {});
  for (size_t layer = 0; layer < spec.layers.size(); layer += 2) {
    std::get<GroupedQueryAttention>(spec.layers[layer].attention).rope = {.rotary_dim = 32};
  }
  EXPECT_EQ(ActivationBytes(layout, spec, {}), one_kind + uint64_t{8192} * 32 * 4);
}

}  // namespace
}  // namespace essor::model
