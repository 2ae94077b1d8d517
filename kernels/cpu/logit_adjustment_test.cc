#include "kernels/logit_adjustment.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/row_test_support.h"
#include "kernels/reference/sampling.h"

namespace essor::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

class LogitAdjustmentTest : public EachIsaTest {};
INSTANTIATE_TEST_SUITE_P(Isa, LogitAdjustmentTest, ::testing::ValuesIn(kAllIsas), IsaTestName);

TEST_P(LogitAdjustmentTest, EachChangeByHand) {
  auto stream = MakeStream();
  std::vector<float> logits = {1, 2, -2, 3, 4, 5, 0, 7, 8, 9};
  const std::vector<TokenMark> marks = {0, 1, 1, 3, 7};  // of row 1: seen, seen, once, three times
  const std::vector<uint32_t> marked = {1, 2, 3, 4};
  const std::vector<std::pair<uint32_t, float>> biases = {{0, 1.5f}, {1, -1.0f}};
  const std::vector<uint32_t> blocked = {0};
  const RowAdjustment row{.row = 1,
                          .repetition_penalty = 2,
                          .presence_penalty = 0.5f,
                          .frequency_penalty = 0.25f,
                          .marks = marks,
                          .marked = marked,
                          .biases = biases,
                          .blocked = blocked};
  AdjustLogits({.logits = logits.data(), .width = 5, .rows = {&row, 1}}, *stream);
  // 0 + -1 lies below 0 and doubles; 8 / 2 - 0.25 - 0.5; 9 / 2 - 0.75 - 0.5.
  EXPECT_THAT(logits, ::testing::ElementsAre(1, 2, -2, 3, 4, -kInfinity, -2, 3.5f, 3.25f, 3.25f));
}

TEST_P(LogitAdjustmentTest, EqualsTheReferenceBitForBit) {
  auto stream = MakeStream(2);
  constexpr uint32_t kWidth = 777;
  auto logits = RandomFloats(3 * kWidth, 1, 5.0f);
  logits[5] = std::numeric_limits<float>::quiet_NaN();
  logits[6] = -kInfinity;
  std::vector<TokenMark> marks(kWidth, 0);
  std::vector<uint32_t> marked;
  std::vector<std::pair<uint32_t, float>> biases;
  std::vector<uint32_t> blocked;
  for (uint32_t column = 0; column < kWidth; ++column) {
    if (column % 3 == 0) {
      marks[column] = 1 + column % 11;
      marked.push_back(column);
    }
    if (column % 7 == 0) biases.emplace_back(column, 0.1f * static_cast<float>(column % 13) - 0.6f);
    if (column % 50 == 49) blocked.push_back(column);
  }
  const RowAdjustment rows[] = {
      {.row = 2, .repetition_penalty = 1.3f, .marks = marks, .marked = marked, .biases = biases},
      {.row = 0,
       .repetition_penalty = 0.7f,
       .presence_penalty = -0.3f,
       .frequency_penalty = 0.17f,
       .marks = marks,
       .marked = marked,
       .biases = biases,
       .blocked = blocked}};
  std::vector<float> expected = logits;
  reference::AdjustLogits({.logits = expected.data(), .width = kWidth, .rows = rows});
  AdjustLogits({.logits = logits.data(), .width = kWidth, .rows = rows}, *stream);
  for (size_t i = 0; i < logits.size(); ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(logits[i]), std::bit_cast<uint32_t>(expected[i])) << i;
  }
}

}  // namespace
}  // namespace essor::kernels
