#include "kernels/routing.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <set>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/row_test_support.h"
#include "kernels/reference/routing.h"

namespace essor::kernels {
namespace {

using ::testing::ElementsAre;

struct Routed {
  std::vector<uint32_t> ids;
  std::vector<float> weights;
};

RouterParams MakeParams(const std::vector<float>& logits, uint32_t num_experts, uint32_t top_k,
                        bool renormalise, Routed& routed) {
  const auto rows = static_cast<uint32_t>(logits.size() / num_experts);
  routed.ids.assign(size_t{rows} * top_k, 99999);
  routed.weights.assign(size_t{rows} * top_k, kPoison);
  return {.logits = logits.data(),
          .num_rows = rows,
          .num_experts = num_experts,
          .top_k = top_k,
          .renormalise = renormalise,
          .expert_ids = routed.ids.data(),
          .expert_weights = routed.weights.data()};
}

class RoutingTest : public EachIsaTest {};
INSTANTIATE_TEST_SUITE_P(Isa, RoutingTest, ::testing::ValuesIn(kAllIsas), IsaTestName);

// Ids are equal: they follow from comparisons of logits alone. A weight is a quotient of
// exponentials, of at most 20 below the largest (1.2e-7 each, 3e-7 of the series), over a sum of
// at most 512 of them in at least 4 lanes (128 + 2 roundings).
TEST_P(RoutingTest, EqualsTheReference) {
  for (uint32_t experts : {1u, 2u, 8u, 17u, 60u, 64u, 128u, 512u}) {
    for (uint32_t top_k : {1u, 2u, 6u, 8u, 17u}) {
      if (top_k > experts) continue;
      for (bool renormalise : {false, true}) {
        auto stream = MakeStream(2);
        // Some equal logits: rounded to quarters.
        auto logits = RandomFloats(size_t{150} * experts, experts + top_k, 2.0f);
        for (float& logit : logits) logit = std::round(logit * 4) / 4;
        Routed expected;
        Routed actual;
        reference::Route(MakeParams(logits, experts, top_k, renormalise, expected));
        Route(MakeParams(logits, experts, top_k, renormalise, actual), *stream);
        ASSERT_EQ(actual.ids, expected.ids) << experts << " top " << top_k;
        const double relative = 2 * (20 * 1.2e-7 + 3e-7) + (experts / 4 + 4) * kRounding;
        for (size_t i = 0; i < actual.weights.size(); ++i) {
          ASSERT_NEAR(actual.weights[i], expected.weights[i], relative * expected.weights[i]);
        }
      }
    }
  }
}

// By hand: logits are log 1, log 2, log 4, log 1.
TEST_P(RoutingTest, KnownRow) {
  auto stream = MakeStream();
  const std::vector<float> logits = {0.0f, std::log(2.0f), std::log(4.0f), 0.0f};
  Routed routed;
  Route(MakeParams(logits, 4, 3, false, routed), *stream);
  EXPECT_THAT(routed.ids, ElementsAre(2, 1, 0));  // expert 0 before its equal, expert 3
  EXPECT_THAT(routed.weights,
              ElementsAre(::testing::FloatNear(0.5f, 1e-6f), ::testing::FloatNear(0.25f, 1e-6f),
                          ::testing::FloatNear(0.125f, 1e-6f)));
  Route(MakeParams(logits, 4, 2, true, routed), *stream);
  EXPECT_THAT(routed.weights, ElementsAre(::testing::FloatNear(2.0f / 3, 1e-6f),
                                          ::testing::FloatNear(1.0f / 3, 1e-6f)));
}

struct RouterShape {
  uint32_t experts;
  uint32_t groups;
  uint32_t kept_groups;
  uint32_t top_k;
};

// Choice values are rounded to float32 before they are compared, the same in both; a weight is a
// score (one rounding, of an exponential good to 2^-50) times a factor (one rounding).
TEST_P(RoutingTest, ScoresBiasesAndGroupsEqualTheReference) {
  for (const auto score : {RouterScore::kSoftmax, RouterScore::kSigmoid}) {
    for (const RouterShape& shape :
         {RouterShape{8, 1, 1, 2}, {64, 1, 1, 6}, {8, 4, 2, 3}, {256, 8, 4, 8}, {6, 6, 3, 3}}) {
      for (const bool renormalise : {false, true}) {
        const auto logits =
            RandomFloats(size_t{150} * shape.experts, shape.experts + shape.top_k, 2.0f);
        const auto bias = RandomFloats(shape.experts, 7, 0.3f);
        auto stream = MakeStream(2);
        Routed expected;
        Routed actual;
        const auto params = [&](Routed& routed) {
          RouterParams router = MakeParams(logits, shape.experts, shape.top_k, renormalise, routed);
          router.score = score;
          router.bias = bias.data();
          router.num_groups = shape.groups;
          router.top_groups = shape.kept_groups;
          router.scale = 2.5f;
          return router;
        };
        reference::Route(params(expected));
        Route(params(actual), *stream);
        ASSERT_EQ(actual.ids, expected.ids)
            << shape.experts << " experts in " << shape.groups << " groups";
        for (size_t i = 0; i < actual.weights.size(); ++i) {
          ASSERT_NEAR(actual.weights[i], expected.weights[i], 2e-7 * expected.weights[i]);
        }
      }
    }
  }
}

// Llama 4's router. The sigmoids of 30 and 40 are both 1 in float32; the choice still tells them
// apart, and NaN is chosen last.
TEST_P(RoutingTest, WithoutBiasAndGroupsLogitsDecide) {
  auto stream = MakeStream();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> logits = {30.0f, 0.0f, 40.0f, nan, -200.0f, -100.0f};
  for (const auto score : {RouterScore::kSoftmax, RouterScore::kSigmoid}) {
    Routed expected;
    Routed actual;
    const auto params = [&](Routed& routed) {
      RouterParams router = MakeParams(logits, 6, 6, false, routed);
      router.score = score;
      router.scale = 0.5f;
      return router;
    };
    reference::Route(params(expected));
    Route(params(actual), *stream);
    EXPECT_THAT(actual.ids, ElementsAre(2, 0, 1, 5, 4, 3));
    EXPECT_EQ(actual.ids, expected.ids);
    if (score != RouterScore::kSigmoid) continue;
    EXPECT_EQ(actual.weights[0], 0.5f);
    EXPECT_EQ(actual.weights[1], 0.5f);
    EXPECT_EQ(actual.weights[2], 0.25f);
  }
}

// By hand: sigmoid(0) = 1/2 for all, so the biases decide.
TEST_P(RoutingTest, AGroupThatIsOutCannotBeChosenHoweverLowTheOthersAre) {
  auto stream = MakeStream();
  const std::vector<float> logits(6, 0.0f);
  // Choice values 1.4, -0.6 | -0.3, -0.1 | 0.2, 0.1: groups 0.8, -0.4, 0.3.
  const std::vector<float> bias = {0.9f, -1.1f, -0.8f, -0.6f, -0.3f, -0.4f};
  Routed routed;
  RouterParams params = MakeParams(logits, 6, 4, true, routed);
  params.score = RouterScore::kSigmoid;
  params.bias = bias.data();
  params.num_groups = 3;
  params.top_groups = 2;
  params.scale = 2;
  Route(params, *stream);
  EXPECT_THAT(routed.ids, ElementsAre(0, 4, 5, 1));  // 1 although 2 and 3 have larger values
  for (const float weight : routed.weights) EXPECT_FLOAT_EQ(weight, 0.5f);  // unbiased, 2 / 4
}

// A broken row shows (its weights are NaN) and harms no memory (its ids are distinct).
TEST_P(RoutingTest, NanIsChosenLastByScoreBiasAndGroupToo) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<std::vector<float>> kLogits = {{nan, nan, nan, 1.0f, nan, nan},
                                                   {0.5f, nan, 2.0f, nan, 1.0f, nan},
                                                   {nan, nan, nan, nan, nan, nan},
                                                   {1.0f, 2.0f, 3.0f, 4.0f, 5.0f, nan}};
  for (const auto score : {RouterScore::kSoftmax, RouterScore::kSigmoid}) {
    for (const uint32_t groups : {1u, 3u}) {
      for (const std::vector<float>& logits : kLogits) {
        for (const std::vector<float>& bias :
             {std::vector<float>(6, 0.1f), {0.1f, nan, 0.1f, 0.1f, nan, 0.1f}}) {
          auto stream = MakeStream();
          const auto route = [&](Routed& routed) {
            RouterParams params = MakeParams(logits, 6, 3, true, routed);
            params.score = score;
            params.bias = bias.data();
            params.num_groups = groups;
            params.top_groups = groups == 1 ? 1 : 2;
            return params;
          };
          Routed expected;
          Routed actual;
          reference::Route(route(expected));
          Route(route(actual), *stream);
          ASSERT_EQ(actual.ids, expected.ids);
          EXPECT_EQ(std::set<uint32_t>(actual.ids.begin(), actual.ids.end()).size(), 3u);
          for (size_t j = 0; j < 3; ++j) {
            EXPECT_EQ(std::isnan(actual.weights[j]), std::isnan(expected.weights[j]));
          }
        }
      }
    }
  }
}

TEST_P(RoutingTest, NanLogitsAreChosenLastAndIdsStayValid) {
  auto stream = MakeStream();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> logits(40, nan);
  logits[33] = 1.0f;
  logits[5] = 2.0f;
  Routed routed;
  Route(MakeParams(logits, 40, 2, true, routed), *stream);
  EXPECT_THAT(routed.ids, ElementsAre(5, 33));
  std::fill(logits.begin(), logits.end(), nan);
  Route(MakeParams(logits, 40, 3, true, routed), *stream);
  EXPECT_THAT(routed.ids, ElementsAre(0, 1, 2));
  EXPECT_TRUE(std::isnan(routed.weights[0]));  // not hidden: the row is broken
}

TEST_P(RoutingTest, ARowDoesNotDependOnTheOthers) {
  constexpr uint32_t kExperts = 60;
  const auto logits = RandomFloats(500 * kExperts, 3);
  auto one = MakeStream(1);
  auto three = MakeStream(3);
  Routed together;
  Route(MakeParams(logits, kExperts, 4, true, together), *three);
  for (size_t t = 0; t < 500; ++t) {
    const std::vector<float> row(logits.begin() + t * kExperts,
                                 logits.begin() + (t + 1) * kExperts);
    Routed alone;
    Route(MakeParams(row, kExperts, 4, true, alone), *one);
    for (size_t j = 0; j < 4; ++j) {
      ASSERT_EQ(alone.ids[j], together.ids[t * 4 + j]);
      ASSERT_EQ(alone.weights[j], together.weights[t * 4 + j]);
    }
  }
}

TEST_P(RoutingTest, NothingHappensWithoutRows) {
  auto stream = MakeStream(2);
  Routed routed;
  Route(MakeParams({}, 8, 2, true, routed), *stream);
  EXPECT_TRUE(routed.ids.empty());
}

}  // namespace
}  // namespace essor::kernels
