// The memory plan restates what the kernels take, since model may not depend on kernels; this test,
// which may, compares the two.
#include <gtest/gtest.h>

#include "kernels/linear.h"
#include "kernels/packed_matrix.h"
#include "model/plan/memory_plan.h"

namespace essor::model {
namespace {

using kernels::WeightFormat;

struct Format {
  DType stored;
  WeightFormat format;
};
constexpr Format kFormats[] = {{DType::kF32, WeightFormat::kF32},
                               {DType::kBF16, WeightFormat::kBF16},
                               {DType::kQ8_0, WeightFormat::kQ8},
                               {DType::kQ4_1, WeightFormat::kQ4}};

TEST(PackedBytesAgreementTest, MatricesTakeWhatTheKernelsPack) {
  for (const Format& format : kFormats) {
    for (const uint32_t rows : {1u, 31u, 32u, 33u, 64u, 65u, 576u, 49152u}) {
      for (const uint32_t cols : {32u, 64u, 96u, 1536u}) {
        const WeightSlice slice{.binding = {.role = WeightRole::kUp, .rows = rows, .cols = cols},
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

// The plan's bound for the FFN's workspace holds for every format.
TEST(PackedBytesAgreementTest, WorkspacesStayBelowThePlan) {
  ModelSpec spec{
      .family = "mixtral", .hidden_size = 576, .vocab_size = 49152, .max_context_tokens = 2048};
  const GroupedQueryAttention attention{.num_heads = 9, .num_kv_heads = 3, .head_dim = 64};
  spec.layers.assign(2, {.attention = attention,
                         .ffn = MoeFfn{.num_experts = 8, .top_k = 2, .intermediate_size = 1536}});
  const RankLayout layout = LayoutOf({}, spec, 0, 1);
  const ServingLimits limits;
  // What the engine itself takes per token of a step: residual, norm, sub-layer output, query,
  // attention, key, value, router.
  const uint64_t engine =
      uint64_t{limits.max_step_tokens} * 4 * (3 * 576 + 2 * 576 + 2 * 192 + 8 + 2 * 2);
  for (const Format& format : kFormats) {
    const uint64_t ffn = kernels::FfnWorkspaceBytes({.gate_up_format = format.format,
                                                     .down_format = format.format,
                                                     .hidden = 576,
                                                     .intermediate = 1536,
                                                     .num_experts = 8,
                                                     .top_k = 2},
                                                    limits.max_step_tokens, 64);
    EXPECT_LE(engine + ffn, ActivationBytes(layout, spec, limits));
  }
}

}  // namespace
}  // namespace essor::model
