#include "client/convert/seeded_noise.h"

#include <cmath>

#include "gtest/gtest.h"

namespace essor::client {
namespace {

// For n draws of unit normals the mean has a standard deviation of n^-0.5, the mean square one of
// (kurtosis - 1)^0.5 n^-0.5 (kurtosis 3 - 1.2 / 12 here): five of them are allowed.
TEST(SeededNoiseTest, HasMeanZeroAndVarianceOne) {
  constexpr int kDraws = 1 << 18;
  const SeededNoise noise(3, "w");
  double sum = 0.0;
  double squares = 0.0;
  for (int i = 0; i < kDraws; ++i) {
    const double value = noise.Normal(i);
    ASSERT_LE(std::abs(value), 6.0);
    sum += value;
    squares += value * value;
  }
  EXPECT_NEAR(sum / kDraws, 0.0, 5.0 / std::sqrt(kDraws));
  EXPECT_NEAR(squares / kDraws, 1.0, 5.0 * std::sqrt(1.9 / kDraws));
}

double Correlation(const SeededNoise& a, const SeededNoise& b, int shift) {
  constexpr int kDraws = 1 << 14;
  double sum = 0.0;
  for (int i = 0; i < kDraws; ++i) sum += double{a.Normal(i)} * b.Normal(i + shift);
  return sum / kDraws;
}

TEST(SeededNoiseTest, SeedsNamesAndPlacesAreIndependent) {
  const double limit = 5.0 / std::sqrt(1 << 14);
  const SeededNoise noise(3, "w");
  EXPECT_NEAR(Correlation(noise, SeededNoise(4, "w"), 0), 0.0, limit);
  EXPECT_NEAR(Correlation(noise, SeededNoise(3, "v"), 0), 0.0, limit);
  EXPECT_NEAR(Correlation(noise, noise, 1), 0.0, limit);
  EXPECT_NEAR(Correlation(noise, SeededNoise(3, "w"), 0), 1.0, 5.0 * std::sqrt(1.9 / (1 << 14)));
}

// Converted models must not change when this code does. The values were worked out by hand-written
// Python from the same definition.
TEST(SeededNoiseTest, ValuesStayWhatTheyAre) {
  const SeededNoise noise(7, "model.layers.0.block_sparse_moe.gate.weight");
  EXPECT_EQ(noise.Normal(0), -0.2716064453125f);
  EXPECT_EQ(noise.Normal(1), -0.2223968505859375f);
  EXPECT_EQ(noise.Normal(1'000'000'007), -1.329315185546875f);
}

}  // namespace
}  // namespace essor::client
