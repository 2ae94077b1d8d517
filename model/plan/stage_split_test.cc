#include "model/plan/stage_split.h"

#include <algorithm>
#include <functional>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace essor::model {
namespace {

using ::testing::ElementsAre;

TEST(SplitStagesTest, EqualLayersSplitEvenly) {
  const std::vector<uint64_t> layers(12, 5);
  EXPECT_THAT(SplitStages({.layers = layers}, 3), ElementsAre(0, 4, 8, 12));
  EXPECT_THAT(SplitStages({.layers = layers}, 1), ElementsAre(0, 12));
}

// The embedding weighs as much as two layers, the head as well.
TEST(SplitStagesTest, OuterWeightsCount) {
  const std::vector<uint64_t> layers(8, 10);
  EXPECT_THAT(SplitStages({.layers = layers, .first_stage = 20, .last_stage = 20}, 3),
              ElementsAre(0, 2, 6, 8));
}

// Ten layers over four stages cannot weigh less than three at most: the rest is spread evenly
// instead of leaving one stage with a single layer.
TEST(SplitStagesTest, TiesGoToTheMostEvenDivision) {
  const std::vector<uint64_t> layers(10, 1);
  const std::vector<uint32_t> starts = SplitStages({.layers = layers}, 4);
  for (size_t stage = 0; stage < 4; ++stage) {
    EXPECT_GE(starts[stage + 1] - starts[stage], 2u);
    EXPECT_LE(starts[stage + 1] - starts[stage], 3u);
  }
}

TEST(SplitStagesTest, AStagePerLayer) {
  const std::vector<uint64_t> layers{9, 1, 4};
  EXPECT_THAT(SplitStages({.layers = layers, .first_stage = 100}, 3), ElementsAre(0, 1, 2, 3));
}

uint64_t Heaviest(const StageCosts& costs, const std::vector<uint32_t>& starts) {
  uint64_t heaviest = 0;
  for (size_t stage = 0; stage + 1 < starts.size(); ++stage) {
    uint64_t cost = stage == 0 ? costs.first_stage : 0;
    if (stage + 2 == starts.size()) cost += costs.last_stage;
    for (uint32_t i = starts[stage]; i < starts[stage + 1]; ++i) cost += costs.layers[i];
    heaviest = std::max(heaviest, cost);
  }
  return heaviest;
}

// Against trying every division.
TEST(SplitStagesTest, IsOptimal) {
  std::mt19937_64 random(7);
  const auto between = [&](uint64_t low, uint64_t high) {
    return std::uniform_int_distribution<uint64_t>(low, high)(random);
  };
  for (int round = 0; round < 300; ++round) {
    std::vector<uint64_t> layers(between(1, 9));
    for (uint64_t& layer : layers) layer = between(1, 50);
    const StageCosts costs{
        .layers = layers, .first_stage = between(0, 60), .last_stage = between(0, 60)};
    const auto stages = static_cast<uint32_t>(between(1, layers.size()));
    uint64_t best = UINT64_MAX;
    std::vector<uint32_t> starts{0};
    const std::function<void()> extend = [&] {
      if (starts.size() == stages) {
        starts.push_back(static_cast<uint32_t>(layers.size()));
        best = std::min(best, Heaviest(costs, starts));
        starts.pop_back();
        return;
      }
      for (uint32_t next = starts.back() + 1; next < layers.size(); ++next) {
        starts.push_back(next);
        extend();
        starts.pop_back();
      }
    };
    extend();
    const std::vector<uint32_t> chosen = SplitStages(costs, stages);
    ASSERT_TRUE(std::is_sorted(chosen.begin(), chosen.end(), std::less_equal<>()));
    ASSERT_EQ(Heaviest(costs, chosen), best);
  }
}

}  // namespace
}  // namespace essor::model
