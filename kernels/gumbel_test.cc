#include "kernels/gumbel.h"

#include <cmath>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace essor::kernels {
namespace {

using ::testing::ElementsAre;

// The known answers that the authors of the generator publish with it (Random123, kat_vectors).
TEST(PhiloxTest, GivesTheKnownAnswers) {
  EXPECT_THAT(Philox4x32({0, 0, 0, 0}, {0, 0}),
              ElementsAre(0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u));
  constexpr uint32_t kOnes = 0xffffffffu;
  EXPECT_THAT(Philox4x32({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
              ElementsAre(0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu));
  EXPECT_THAT(
      Philox4x32({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}, {0xa4093822u, 0x299f31d0u}),
      ElementsAre(0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u));
}

// The word of an id, as the header describes it, through the exact formula in double. E and its
// logarithm each carry a relative error of a few roundings and 2e-8 of the series: below 1e-6 of E,
// so 1e-6 absolute on log E, plus 1e-6 relative.
TEST(GumbelTest, IsTheFormulaOfTheHeader) {
  const uint64_t seed = 0x123456789abcdefULL;
  const uint64_t position = 0x100000007ULL;
  for (uint32_t id = 0; id < 5000; ++id) {
    const uint32_t group = id / 64;
    const uint32_t word = id % 64 / 16;
    const uint32_t lane = id % 16;
    const auto words = Philox4x32({16 * group + lane, 7, 1, 0}, {0x89abcdefu, 0x1234567u});
    const double u = (words[word] + 0.5) * 0x1p-32;
    const double expected = -std::log(-std::log1p(-u));
    ASSERT_NEAR(Gumbel(seed, position, id), expected, 1e-6 * (1 + std::abs(expected))) << id;
  }
}

// Mean is Euler's constant and variance pi^2 / 6; the mean of n draws deviates by sqrt(1.645 / n),
// their variance (fourth central moment 5.4 variance^2) by sqrt(4.4 * 2.71 / n). Five sigma.
TEST(GumbelTest, HasTheMomentsOfItsDistribution) {
  constexpr int kDraws = 200000;
  double sum = 0;
  double squares = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double g = Gumbel(42, i / 1000, i % 1000);
    ASSERT_GT(g, -3.2);
    ASSERT_LT(g, 22.9);
    sum += g;
    squares += g * g;
  }
  const double mean = sum / kDraws;
  EXPECT_NEAR(mean, 0.5772157, 5 * std::sqrt(1.645 / kDraws));
  EXPECT_NEAR(squares / kDraws - mean * mean, 1.6449341, 5 * std::sqrt(11.9 / kDraws));
}

TEST(GumbelTest, DependsOnEveryPartOfTheKey) {
  std::set<float> values = {Gumbel(1, 1, 1),  Gumbel(2, 1, 1),          Gumbel(1ull << 32, 1, 1),
                            Gumbel(1, 2, 1),  Gumbel(1, 1ull << 32, 1), Gumbel(1, 1, 2),
                            Gumbel(1, 1, 17), Gumbel(1, 1, 65)};
  EXPECT_EQ(values.size(), 8u);
}

}  // namespace
}  // namespace essor::kernels
