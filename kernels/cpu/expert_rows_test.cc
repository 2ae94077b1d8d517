#include "kernels/expert_rows.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <tuple>

#include "common/float16.h"
#include "gtest/gtest.h"
#include "kernels/cpu/linear_test_support.h"
#include "kernels/reference/linear_reference.h"

namespace essor::kernels {
namespace {

using testing::MakeStream;
using testing::RandomFloats;
using testing::TestMatrix;

constexpr uint32_t kHidden = 96;
constexpr uint32_t kIntermediate = 64;
constexpr uint32_t kExperts = 5;
constexpr uint32_t kTopK = 3;
constexpr uint32_t kRows = 21;

// Experts with biases, kTopK different ones for each row, and the rows.
struct Case {
  explicit Case(WeightFormat format) : x(RandomFloats(size_t{kRows} * kHidden, 1)) {
    for (uint32_t e = 0; e < kExperts; ++e) {
      matrices.push_back(TestMatrix::Random(format, kIntermediate, kHidden, 10 * e + 2));
      matrices.push_back(TestMatrix::Random(format, kIntermediate, kHidden, 10 * e + 3));
      matrices.push_back(TestMatrix::Random(format, kHidden, kIntermediate, 10 * e + 4));
      biases.push_back(RandomFloats(kHidden, 10 * e + 5));
    }
    for (uint32_t e = 0; e < kExperts; ++e) {
      experts.push_back({.gate = matrices[3 * e].view(),
                         .up = matrices[3 * e + 1].view(),
                         .down = matrices[3 * e + 2].view(),
                         .down_bias = biases[e].data()});
    }
    std::mt19937 engine(6);
    for (uint32_t t = 0; t < kRows; ++t) {
      const uint32_t first = engine() % kExperts;
      for (uint32_t j = 0; j < kTopK; ++j) {
        ids.push_back((first + 2 * j) % kExperts);
        weights.push_back(static_cast<float>(1 + engine() % 100) / 100);
      }
    }
  }

  MoeFfnParams Params(uint32_t first_expert, uint32_t num_experts, float* y) const {
    return {.x = x.data(),
            .num_rows = kRows,
            .top_k = kTopK,
            .expert_ids = ids.data(),
            .expert_weights = weights.data(),
            .first_expert = first_expert,
            .experts = std::span(experts).subspan(first_expert, num_experts),
            .y = y};
  }

  std::vector<float> x;
  std::vector<TestMatrix> matrices;
  std::vector<std::vector<float>> biases;
  std::vector<GatedFfnWeights> experts;
  std::vector<uint32_t> ids;
  std::vector<float> weights;
};

class ExpertRowsTest : public ::testing::TestWithParam<std::tuple<CpuIsa, WeightFormat>> {
 protected:
  void SetUp() override {
    if (!CpuIsaAvailable(isa())) GTEST_SKIP() << "this processor has no " << CpuIsaName(isa());
  }
  CpuIsa isa() const { return std::get<0>(GetParam()); }
  WeightFormat format() const { return std::get<1>(GetParam()); }
};

// Each of two devices computes the rows of its experts; put together in the router's order they
// are the sum of one device that has them all, in every bit.
TEST_P(ExpertRowsTest, CombineToTheSumOfOneDevice) {
  const Case test(format());
  const auto stream = MakeStream(isa(), 2);
  for (const bool weigh_input : {false, true}) {
    std::vector<float> whole(size_t{kRows} * kHidden);
    MoeFfnParams params = test.Params(0, kExperts, whole.data());
    params.weigh_input = weigh_input;
    MoeFfn(params, *stream);

    constexpr uint32_t kFirstHas = 2;  // experts
    std::vector<float> rows(size_t{kRows} * kTopK * kHidden);
    uint32_t of_first = 0;
    for (const uint32_t id : test.ids) of_first += id < kFirstHas ? 1 : 0;
    params = test.Params(0, kFirstHas, rows.data());
    params.weigh_input = weigh_input;
    MoeExpertRows(params, *stream);
    params = test.Params(kFirstHas, kExperts - kFirstHas, &rows[size_t{of_first} * kHidden]);
    params.weigh_input = weigh_input;
    MoeExpertRows(params, *stream);

    std::vector<uint32_t> row_ids;
    uint32_t next[] = {0, of_first};
    for (const uint32_t id : test.ids) row_ids.push_back(next[id < kFirstHas ? 0 : 1]++);
    std::vector<float> combined(whole.size());
    CombineExperts({.rows = rows.data(),
                    .row_ids = row_ids.data(),
                    .expert_weights = weigh_input ? nullptr : test.weights.data(),
                    .num_rows = kRows,
                    .top_k = kTopK,
                    .num_slices = 1,
                    .width = kHidden,
                    .y = combined.data()},
                   *stream);
    EXPECT_EQ(combined, whole) << weigh_input;
  }
}

// A pair's row does not depend on which other experts and rows are there.
TEST_P(ExpertRowsTest, RowsDependOnTheirPairAlone) {
  const Case test(format());
  std::vector<float> all(size_t{kRows} * kTopK * kHidden);
  MoeExpertRows(test.Params(0, kExperts, all.data()), *MakeStream(isa(), 2));
  for (uint32_t place = 0; place < kRows * kTopK; ++place) {
    std::vector<float> alone(kHidden);
    MoeFfnParams params = test.Params(test.ids[place], 1, alone.data());
    params.x = test.x.data() + place / kTopK * kHidden;
    params.num_rows = 1;
    params.top_k = 1;
    params.expert_ids = &test.ids[place];
    params.expert_weights = &test.weights[place];
    MoeExpertRows(params, *MakeStream(isa()));
    ASSERT_EQ(std::memcmp(&all[place * kHidden], alone.data(), sizeof(float) * kHidden), 0)
        << place;
  }
}

const auto kKernels = ::testing::Combine(
    ::testing::Values(CpuIsa::kReference, CpuIsa::kPortable, CpuIsa::kAvx2, CpuIsa::kAvx512),
    ::testing::ValuesIn(testing::kAllFormats));

std::string KernelName(const ::testing::TestParamInfo<std::tuple<CpuIsa, WeightFormat>>& info) {
  return std::string(CpuIsaName(std::get<0>(info.param))) + "_" +
         testing::FormatName(std::get<1>(info.param));
}

INSTANTIATE_TEST_SUITE_P(All, ExpertRowsTest, kKernels, KernelName);

// Slices are added before the weight comes, in their order: 1e8 + 1 - 1e8 is 0 in float32 and
// -1e8 + 1e8 + 1 is 1. Odd widths end inside a tile.
TEST(CombineExpertsTest, AddsSlicesInOrderAndThenWeighs) {
  for (const CpuIsa isa : {CpuIsa::kPortable, CpuIsa::kAvx2, CpuIsa::kAvx512}) {
    if (!CpuIsaAvailable(isa)) continue;
    constexpr uint32_t kWidth = 37;
    const float values[] = {1e8f, 1.0f, -1e8f, 5.0f};
    std::vector<float> rows;
    for (const float value : values) rows.insert(rows.end(), kWidth, value);
    const uint32_t row_ids[] = {0, 1, 2, 0, 2, 1, 3, 3, 3, 1, 1, 3};  // [2, 2, 3]
    const float weights[] = {0.5f, 2.0f, 3.0f, -1.0f};
    std::vector<float> y(2 * kWidth);
    CombineExperts({.rows = rows.data(),
                    .row_ids = row_ids,
                    .expert_weights = weights,
                    .num_rows = 2,
                    .top_k = 2,
                    .num_slices = 3,
                    .width = kWidth,
                    .y = y.data()},
                   *MakeStream(isa));
    for (uint32_t i = 0; i < kWidth; ++i) {
      ASSERT_EQ(y[i], 2.0f) << i;            // 0.5 x 0 + 2 x 1
      ASSERT_EQ(y[kWidth + i], 38.0f) << i;  // 3 x 15 - 7
    }
  }
}

TEST(GatherRowsTest, TakesRowsInAnyOrderAndType) {
  constexpr uint32_t kWidth = 5;
  std::vector<float> x = RandomFloats(7 * kWidth, 9);
  x[2 * kWidth] = std::numeric_limits<float>::quiet_NaN();
  x[2 * kWidth + 1] = std::numeric_limits<float>::infinity();
  const std::vector<uint32_t> ids = {6, 2, 2, 0};
  const auto stream = MakeStream(CpuIsa::kPortable, 2);
  std::vector<float> plain(ids.size() * kWidth);
  GatherRowsParams params{.x = x.data(),
                          .row_ids = ids.data(),
                          .num_rows = 4,
                          .width = kWidth,
                          .y = reinterpret_cast<std::byte*>(plain.data())};
  GatherRows(params, *stream);
  std::vector<uint16_t> rounded(plain.size());
  params.bfloat16 = true;
  params.y = reinterpret_cast<std::byte*>(rounded.data());
  GatherRows(params, *stream);
  std::vector<float> widened(plain.size());
  WidenBFloat16(params.y, widened.data(), widened.size(), *stream);
  for (size_t i = 0; i < plain.size(); ++i) {
    const float expected = x[ids[i / kWidth] * kWidth + i % kWidth];
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(plain[i]) && std::isnan(widened[i]));
      continue;
    }
    EXPECT_EQ(plain[i], expected) << i;
    EXPECT_EQ(widened[i], ToFloat(ToBFloat16(expected))) << i;
  }
}

// What is rounded twice is rounded once: a layer that takes bfloat16 does not notice the wire.
TEST(GatherRowsTest, RoundingBeforeAProductChangesNothing) {
  for (const CpuIsa isa : {CpuIsa::kPortable, CpuIsa::kAvx2, CpuIsa::kAvx512}) {
    if (!CpuIsaAvailable(isa)) continue;
    const auto stream = MakeStream(isa);
    Case test(WeightFormat::kBF16);
    std::vector<float> plain(size_t{kRows} * kHidden);
    MoeFfn(test.Params(0, kExperts, plain.data()), *stream);
    std::vector<uint32_t> ids(kRows);
    for (uint32_t t = 0; t < kRows; ++t) ids[t] = t;
    std::vector<uint16_t> sent(test.x.size());
    GatherRows({.x = test.x.data(),
                .row_ids = ids.data(),
                .num_rows = kRows,
                .width = kHidden,
                .bfloat16 = true,
                .y = reinterpret_cast<std::byte*>(sent.data())},
               *stream);
    WidenBFloat16(reinterpret_cast<const std::byte*>(sent.data()), test.x.data(), test.x.size(),
                  *stream);
    std::vector<float> through_wire(plain.size());
    MoeFfn(test.Params(0, kExperts, through_wire.data()), *stream);
    EXPECT_EQ(through_wire, plain) << CpuIsaName(isa);
  }
}

}  // namespace
}  // namespace essor::kernels
