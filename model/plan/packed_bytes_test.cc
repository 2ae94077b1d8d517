// The memory plan restates what the kernels take, since model may not depend on kernels; this test,
// which may, compares the two.
#include <gtest/gtest.h>

#include "kernels/attention.h"
#include "kernels/index_selection.h"
#include "kernels/latent_attention.h"
#include "kernels/linear.h"
#include "kernels/packed_matrix.h"
#include "model/plan/attention_shape.h"
#include "model/plan/memory_plan.h"
#include "model/plan/scratch_widths.h"

namespace essor::model {
namespace {

using kernels::WeightFormat;

struct Format {
  DType stored;
  WeightFormat format;
};
constexpr Format kFormats[] = {
    {DType::kF32, WeightFormat::kF32},      {DType::kBF16, WeightFormat::kBF16},
    {DType::kQ8_0, WeightFormat::kQ8},      {DType::kQ4_1, WeightFormat::kQ4},
    {DType::kF8E4M3, WeightFormat::kFp8},   {DType::kF4E2M1, WeightFormat::kFp4},
    {DType::kOffsetI4, WeightFormat::kInt4}};

TEST(PackedBytesAgreementTest, MatricesTakeWhatTheKernelsPack) {
  for (const Format& format : kFormats) {
    for (const uint32_t rows : {1u, 31u, 32u, 33u, 64u, 65u, 576u, 49152u}) {
      for (const uint32_t cols : {32u, 64u, 96u, 1536u}) {
        const WeightSlice slice{
            .binding = {.role = WeightRole::kUp, .expert = 0, .rows = rows, .cols = cols},
            .rows = {0, rows},
            .cols = {0, cols}};
        EXPECT_EQ(PackedBytes(slice, format.stored, false),
                  kernels::PackedMatrixBytes(format.format, rows, cols))
            << "format " << static_cast<int>(format.format) << " " << rows << " x " << cols;
      }
    }
  }
  const WeightSlice odd{.binding = {.role = WeightRole::kUp, .rows = 40, .cols = 33},
                        .rows = {0, 40},
                        .cols = {0, 33}};
  EXPECT_EQ(PackedBytes(odd, DType::kBF16, false),
            kernels::PackedMatrixBytes(WeightFormat::kBF16, 40, 33));
}

TEST(PackedBytesAgreementTest, Fp8SlicesMayCutBlocks) {
  for (const uint32_t begin : {0u, 1u, 30u, 32u, 96u, 127u, 128u, 192u, 301u}) {
    for (const uint32_t width : {1u, 2u, 64u, 97u, 128u, 130u, 384u, 700u}) {
      const WeightSlice slice{.binding = {.role = WeightRole::kDown, .rows = 70, .cols = 1001},
                              .rows = {3, 70},
                              .cols = {begin, begin + width}};
      EXPECT_EQ(PackedBytes(slice, DType::kF8E4M3, false),
                kernels::PackedMatrixBytes(WeightFormat::kFp8, 67, width, begin % 128))
          << width << " columns from " << begin;
    }
  }
}

// Only projections and FFNs are e4m3 in such a model, unless a checkpoint was seen that says more.
TEST(PackedBytesAgreementTest, EmbeddingAndHeadOfFp8ModelsAreBFloat16) {
  for (const WeightRole role : {WeightRole::kEmbedding, WeightRole::kHead}) {
    WeightSlice slice{
        .binding = {.role = role, .rows = 64, .cols = 256}, .rows = {0, 64}, .cols = {0, 256}};
    EXPECT_EQ(PackedBytes(slice, DType::kF8E4M3, false), 64u * 256 * 2);
    slice.binding.stored = DType::kF8E4M3;
    EXPECT_EQ(PackedBytes(slice, DType::kF8E4M3, false), 64u * (256 + 8));
  }
}

// Only the routed experts are 4-bit in such a model.
TEST(PackedBytesAgreementTest, AllButExpertsOf4BitModelsIsBFloat16) {
  for (const DType stored : {DType::kF4E2M1, DType::kOffsetI4}) {
    WeightSlice slice{.binding = {.role = WeightRole::kUp, .rows = 64, .cols = 256},
                      .rows = {0, 64},
                      .cols = {0, 256}};
    EXPECT_EQ(PackedBytes(slice, stored, false), 64u * 256 * 2);
    slice.binding.expert = 3;
    EXPECT_EQ(PackedBytes(slice, stored, false), 64u * 256 * 9 / 16);
    EXPECT_EQ(PackedBytes(slice, stored, true), 64u * 256 * 4);
  }
}

ModelSpec SpecOf(const AttentionSpec& attention, const MoeFfn& ffn, uint32_t context) {
  ModelSpec spec{
      .family = "mixtral", .hidden_size = 576, .vocab_size = 49152, .max_context_tokens = context};
  spec.layers.assign(2, {.attention = attention, .ffn = ffn});
  return spec;
}

// What the engine itself takes per step: residual, norm, sub-layer output, query, attention, key,
// value, router.
uint64_t EngineBytes(const GroupedQueryAttention& attention, const MoeFfn& ffn,
                     const ServingLimits& limits) {
  return uint64_t{limits.max_step_tokens} * 4 *
         (3 * 576 + 2 * attention.head_dim * (attention.num_heads + attention.num_kv_heads) +
          ffn.num_experts + 2 * ffn.top_k);
}

// The plan's bounds for the kernels' workspaces hold for every format, and with as many threads as
// it plans for.
TEST(PackedBytesAgreementTest, FfnWorkspaceStaysBelowThePlan) {
  const GroupedQueryAttention attention{.num_heads = 9, .num_kv_heads = 3, .head_dim = 64};
  const MoeFfn ffn{.num_experts = 8, .top_k = 2, .intermediate_size = 1536};
  const ModelSpec spec = SpecOf(attention, ffn, 2048);
  const RankLayout layout = LayoutOf({}, spec, 0, 1);
  const ServingLimits limits;
  for (const Format& format : kFormats) {
    const uint64_t workspace = kernels::FfnWorkspaceBytes({.gate_up_format = format.format,
                                                           .down_format = format.format,
                                                           .hidden = 576,
                                                           .intermediate = 1536,
                                                           .num_experts = 8,
                                                           .top_k = 2},
                                                          limits.max_step_tokens, 64);
    EXPECT_LE(EngineBytes(attention, ffn, limits) + workspace,
              ActivationBytes(layout, spec, limits));
  }
}

// With several data-parallel groups experts run the rows that an exchange brings, which with many
// ranks and few tokens are more than a step's own.
TEST(PackedBytesAgreementTest, WorkspaceOfExchangedRowsStaysBelowThePlan) {
  const GroupedQueryAttention attention{.num_heads = 9, .num_kv_heads = 3, .head_dim = 64};
  const MoeFfn ffn{.num_experts = 8, .top_k = 2, .intermediate_size = 1536};
  const ModelSpec spec = SpecOf(attention, ffn, 2048);
  const RankLayout layout = LayoutOf({.dp = 8, .ep = 8}, spec, 3, 1);
  for (const uint32_t step_tokens : {4u, 512u}) {
    const ServingLimits limits{.max_step_tokens = step_tokens};
    const ExpertExchangeSizes sizes = ExpertExchangeSizesOf(spec, layout, step_tokens);
    ASSERT_EQ(sizes.rows, std::max(step_tokens, 16u));
    const uint64_t scratch = 4 * (2 * sizes.rows * 576 + 2 * sizes.choices);
    for (const Format& format : kFormats) {
      const uint64_t workspace = kernels::FfnWorkspaceBytes({.gate_up_format = format.format,
                                                             .down_format = format.format,
                                                             .hidden = 576,
                                                             .intermediate = 1536,
                                                             .num_experts = 1,
                                                             .top_k = 2},
                                                            static_cast<uint32_t>(sizes.rows), 64);
      EXPECT_LE(EngineBytes(attention, ffn, limits) + scratch + workspace,
                ActivationBytes(layout, spec, limits))
          << step_tokens;
    }
  }
}

TEST(PackedBytesAgreementTest, AttentionWorkspaceStaysBelowThePlan) {
  const MoeFfn ffn{.num_experts = 2, .top_k = 1, .intermediate_size = 32};
  for (const auto& attention :
       {GroupedQueryAttention{.num_heads = 9, .num_kv_heads = 3, .head_dim = 64},
        GroupedQueryAttention{.num_heads = 64, .num_kv_heads = 4, .head_dim = 128},
        GroupedQueryAttention{.num_heads = 128, .num_kv_heads = 1, .head_dim = 40}}) {
    for (const uint32_t context : {256u, 8192u, 131072u}) {
      for (const ServingLimits& limits :
           {ServingLimits{}, ServingLimits{.max_step_tokens = 4, .max_sequences = 2}}) {
        const ModelSpec spec = SpecOf(attention, ffn, context);
        const RankLayout layout = LayoutOf({}, spec, 0, 1);
        for (const uint32_t threads : {1u, 2u, 64u}) {
          const uint64_t workspace =
              kernels::AttentionWorkspaceBytes({.num_heads = attention.num_heads,
                                                .num_kv_heads = attention.num_kv_heads,
                                                .key_dim = attention.head_dim,
                                                .value_dim = attention.head_dim,
                                                .max_rows = limits.max_step_tokens,
                                                .max_sequences = limits.max_sequences,
                                                .max_positions = context},
                                               threads);
          EXPECT_LE(EngineBytes(attention, ffn, limits) + workspace,
                    ActivationBytes(layout, spec, limits))
              << attention.num_heads << " heads, context " << context << ", threads " << threads;
        }
      }
    }
  }
}

TEST(PackedBytesAgreementTest, LatentAttentionWorkspaceStaysBelowThePlan) {
  const MoeFfn ffn{.num_experts = 2, .top_k = 1, .intermediate_size = 32};
  for (const auto& attention : {LatentAttention{.num_heads = 128,
                               .q_lora_rank = 1536,
                               .kv_lora_rank = 512,
                               .nope_head_dim = 128,
                               .rope_head_dim = 64,
                               .value_head_dim = 128},
                                LatentAttention{.num_heads = 3,
                                .kv_lora_rank = 21,
                                .nope_head_dim = 8,
                                .rope_head_dim = 6,
                                .value_head_dim = 12}}) {
    for (const uint32_t context : {256u, 131072u}) {
      for (const ServingLimits& limits :
           {ServingLimits{}, ServingLimits{.max_step_tokens = 4, .max_sequences = 2}}) {
        const ModelSpec spec = SpecOf(attention, ffn, context);
        const RankLayout layout = LayoutOf({}, spec, 0, 1);
        const uint64_t heads = attention.num_heads;
        // Residual, norm, sub-layer output; queries, their latent and them over the latents;
        // latent, key, result; router.
        const uint64_t engine = uint64_t{limits.max_step_tokens} * 4 *
                                (3 * 576 + heads * attention.query_head_dim() +
                                 attention.q_lora_rank + 2 * heads * attention.kv_lora_rank +
                                 attention.cached_dim() + ffn.num_experts + 2 * ffn.top_k);
        for (const uint32_t threads : {1u, 2u, 64u}) {
          const uint64_t workspace =
              kernels::AttentionWorkspaceBytes({.num_heads = attention.num_heads,
                                                .num_kv_heads = 1,
                                                .key_dim = attention.cached_dim(),
                                                .value_dim = attention.kv_lora_rank,
                                                .max_rows = limits.max_step_tokens,
                                                .max_sequences = limits.max_sequences,
                                                .max_positions = context},
                                               threads);
          EXPECT_LE(engine + workspace, ActivationBytes(layout, spec, limits))
              << heads << " heads, context " << context << ", threads " << threads;
        }
      }
    }
  }
}

// The arrays that a layer's cache is divided into have the kernels' blocks.
TEST(PackedBytesAgreementTest, BlocksOfKeysAndLatents) {
  const GroupedQueryAttention grouped{.num_heads = 6, .num_kv_heads = 3, .head_dim = 10};
  const LatentAttention latent{
      .num_heads = 2,
      .q_lora_rank = 8,
      .kv_lora_rank = 21,
      .nope_head_dim = 8,
      .rope_head_dim = 6,
      .value_head_dim = 8,
      .indexer = SparseIndexer{.num_heads = 2, .head_dim = 10, .top_k = 8}};
  RankLayout::Layer layer;
  layer.heads = {0, 6};
  layer.kv_heads = {0, 3};
  for (const KvType type : {KvType::kFloat32, KvType::kBFloat16, KvType::kFp8, KvType::kInt8}) {
    const kernels::PagedKv kv{.k = nullptr,
                              .v = nullptr,
                              .type = type,
                              .num_blocks = 1,
                              .block_tokens = 5,
                              .num_kv_heads = 3,
                              .head_dim = 10};
    const KvTokenBytes keys_and_values = KvTokenBytesOf(grouped, layer, type);
    EXPECT_EQ(5 * keys_and_values.first, kv.block_bytes()) << NameOf(type);
    EXPECT_EQ(5 * keys_and_values.second, kv.block_bytes()) << NameOf(type);
    const kernels::PagedLatents latents{.data = nullptr,
                                        .type = type,
                                        .num_blocks = 1,
                                        .block_tokens = 5,
                                        .latent_dim = 21,
                                        .rope_dim = 6};
    const KvTokenBytes rows = KvTokenBytesOf(latent, layer, type);
    EXPECT_EQ(5 * rows.first, latents.block_bytes()) << NameOf(type);
    EXPECT_EQ(rows.second, type == KvType::kFloat32 ? 40u : 20u) << NameOf(type);
  }
}

TEST(PackedBytesAgreementTest, IndexWorkspaceStaysBelowThePlan) {
  const MoeFfn ffn{.num_experts = 2, .top_k = 1, .intermediate_size = 32};
  const LatentAttention attention{
      .num_heads = 1,
      .q_lora_rank = 8,
      .kv_lora_rank = 8,
      .nope_head_dim = 8,
      .rope_head_dim = 8,
      .value_head_dim = 8,
      .indexer = SparseIndexer{.num_heads = 64, .head_dim = 130, .top_k = 2048}};
  const SparseIndexer& indexer = *attention.indexer;
  for (const uint32_t context : {256u, 131072u, 16u << 20}) {
    for (const ServingLimits& limits :
         {ServingLimits{}, ServingLimits{.max_step_tokens = 4, .max_sequences = 2}}) {
      const ModelSpec spec = SpecOf(attention, ffn, context);
      const RankLayout layout = LayoutOf({}, spec, 0, 1);
      // Queries, key and weights of the indexer and what it chose, beside the 3 of the engine.
      const uint64_t engine = uint64_t{limits.max_step_tokens} * 4 *
                              (3 * 576 + indexer.num_heads * indexer.head_dim + indexer.head_dim +
                               indexer.num_heads + indexer.top_k);
      for (const uint32_t threads : {1u, 2u, 64u}) {
        const uint64_t workspace = kernels::IndexWorkspaceBytes(
            {.dim = indexer.head_dim, .max_rows = limits.max_step_tokens, .max_positions = context},
            threads);
        EXPECT_LE(engine + workspace, ActivationBytes(layout, spec, limits))
            << "context " << context << ", threads " << threads;
      }
    }
  }
}

}  // namespace
}  // namespace essor::model
