#include <cstdint>
#include <cstring>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/row_test_support.h"
#include "kernels/elementwise.h"
#include "kernels/reference/elementwise.h"

namespace essor::kernels {
namespace {

using ::testing::ElementsAre;

class LayerNormTest : public EachIsaTest {};
INSTANTIATE_TEST_SUITE_P(Isa, LayerNormTest, ::testing::ValuesIn(kAllIsas), IsaTestName);

// Mean and deviations come from sums of n terms (as NormTolerance counts them, with one chain of
// lanes instead of four); rows here have a mean below 0.5 and deviations below 6, so that no
// difference cancels more than a few bits.
TEST_P(LayerNormTest, LayerNormEqualsTheReferenceAndMayWorkInPlace) {
  for (uint32_t width : {2u, 3u, 16u, 63u, 128u, 577u}) {
    for (uint32_t rows : {1u, 3u, 170u}) {
      auto stream = MakeStream(2);
      auto x = RandomFloats(size_t{rows} * width, width);
      for (float& value : x) value += 0.25f;
      const auto weight = RandomFloats(width, width + 1);
      const auto bias = RandomFloats(width, width + 2);
      std::vector<float> expected(x.size());
      LayerNormParams params{.x = x.data(),
                             .weight = weight.data(),
                             .bias = bias.data(),
                             .y = expected.data(),
                             .num_rows = rows,
                             .width = width,
                             .eps = 1e-3f};
      reference::LayerNorm(params);
      params.y = x.data();
      LayerNorm(params, *stream);
      const double tolerance = 6 * 4 * (width / 4 + 10) * kRounding * 4;
      for (size_t i = 0; i < x.size(); ++i) {
        ASSERT_NEAR(x[i], expected[i], tolerance) << "width " << width << " element " << i;
      }
    }
  }
}

// By hand: (1, 3, 5, 7) has mean 4 and variance 5.
TEST_P(LayerNormTest, LayerNormOfAKnownRow) {
  auto stream = MakeStream();
  const std::vector<float> x = {1, 3, 5, 7};
  const std::vector<float> weight = {1, 1, 2, 1};
  const std::vector<float> bias = {0, 0, 1, 3};
  std::vector<float> y(4, kPoison);
  LayerNorm({.x = x.data(),
             .weight = weight.data(),
             .bias = bias.data(),
             .y = y.data(),
             .num_rows = 1,
             .width = 4,
             .eps = 4},
            *stream);  // 1 / sqrt(5 + 4)
  EXPECT_THAT(y, ElementsAre(::testing::FloatEq(-1.0f), ::testing::FloatEq(-1.0f / 3),
                             ::testing::FloatEq(1 + 2.0f / 3), ::testing::FloatEq(4.0f)));
}

TEST_P(LayerNormTest, LayerNormOfARowDoesNotDependOnTheOthers) {
  constexpr uint32_t kRows = 1100;
  constexpr uint32_t kWidth = 77;
  const auto x = RandomFloats(kRows * kWidth, 1);
  const auto weight = RandomFloats(kWidth, 3);
  std::vector<float> together(x.size());
  std::vector<float> alone(x.size());
  LayerNormParams params{.x = x.data(),
                         .weight = weight.data(),
                         .bias = weight.data(),
                         .y = together.data(),
                         .num_rows = kRows,
                         .width = kWidth,
                         .eps = 1e-5f};
  LayerNorm(params, *MakeStream(3));
  params.num_rows = 1;
  auto one = MakeStream(1);
  for (uint32_t t = 0; t < kRows; ++t) {
    params.x = x.data() + t * kWidth;
    params.y = alone.data() + t * kWidth;
    LayerNorm(params, *one);
  }
  EXPECT_EQ(std::memcmp(together.data(), alone.data(), alone.size() * sizeof(float)), 0);
}

}  // namespace
}  // namespace essor::kernels
