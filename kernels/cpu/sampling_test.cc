#include "kernels/sampling.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/row_test_support.h"
#include "kernels/cpu/sampling_test_support.h"
#include "kernels/gumbel.h"
#include "kernels/reference/sampling.h"

namespace essor::kernels {
namespace {

using ::testing::Each;
using ::testing::Eq;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

RowSampling Greedy() {
  return {.temperature = 0, .top_p = 1, .top_k = 0, .min_p = 0, .seed = 0, .position = 0};
}

class SamplingTest : public EachIsaTest {};
INSTANTIATE_TEST_SUITE_P(Isa, SamplingTest, ::testing::ValuesIn(kAllIsas), IsaTestName);

// Not near: equal. Greedy compares logits, and the perturbation is the same bits everywhere.
TEST_P(SamplingTest, LocalBestEqualsTheReferenceBitForBit) {
  for (uint32_t num_threads : {1u, 2u, 3u}) {
    auto stream = MakeStream(num_threads);
    for (uint32_t width : {1u, 2u, 15u, 16u, 17u, 63u, 64u, 65u, 1000u, 49152u}) {
      for (uint32_t first_id : {0u, 1u, 7u, 16u, 64u, 24577u}) {
        const std::vector<RowSampling> rows = {Greedy(), Sampled(1, 2), Sampled(~0ull, 1ull << 40),
                                               Sampled(9, 9, 100.0f)};
        const auto logits = RandomFloats(rows.size() * width, width + first_id, 3.0f);
        std::vector<Candidate> expected(rows.size());
        reference::LocalBest({.logits = logits.data(),
                              .num_rows = 4,
                              .width = width,
                              .first_id = first_id,
                              .sampling = rows.data(),
                              .best = expected.data()});
        const auto best = Best(logits, first_id, rows, *stream);
        for (size_t r = 0; r < rows.size(); ++r) {
          ASSERT_EQ(best[r].id, expected[r].id) << "width " << width << " first " << first_id;
          ASSERT_EQ(best[r].score, expected[r].score);
        }
      }
    }
  }
}

TEST_P(SamplingTest, OneLongRowIsSharedAmongThreadsWithTheSameResult) {
  const auto logits = RandomFloats(151936, 3, 2.0f);
  auto one = MakeStream(1);
  auto three = MakeStream(3);
  for (const RowSampling& sampling : {Greedy(), Sampled(5, 6)}) {
    const Candidate a = Best(logits, 11, {sampling}, *one)[0];
    const Candidate b = Best(logits, 11, {sampling}, *three)[0];
    EXPECT_EQ(a.id, b.id);
    EXPECT_EQ(a.score, b.score);
  }
}

// Wherever the vocabulary is cut, the merged token is the one of the whole.
TEST_P(SamplingTest, AnySplitOfTheVocabularyGivesTheSameToken) {
  constexpr uint32_t kVocabulary = 3001;
  auto stream = MakeStream(2);
  std::mt19937 generator(7);
  for (uint32_t trial = 0; trial < 100; ++trial) {
    auto logits = RandomFloats(kVocabulary, trial, 2.0f);
    // Ties on purpose: few distinct values.
    if (trial % 3 == 0) {
      for (float& logit : logits) logit = std::round(logit);
    }
    const RowSampling sampling = trial % 2 == 0 ? Greedy() : Sampled(trial, trial);
    const uint32_t whole = Best(logits, 0, {sampling}, *stream)[0].id;

    std::vector<uint32_t> cuts = {0, kVocabulary};
    for (uint32_t i = 0; i < trial % 5; ++i) cuts.push_back(generator() % (kVocabulary + 1));
    std::sort(cuts.begin(), cuts.end());
    cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
    std::vector<Candidate> slices;
    for (size_t i = 0; i + 1 < cuts.size(); ++i) {
      const std::vector<float> slice(logits.begin() + cuts[i], logits.begin() + cuts[i + 1]);
      slices.push_back(Best(slice, cuts[i], {sampling}, *stream)[0]);
    }
    EXPECT_EQ(MergeBest(slices).id, whole);
    std::reverse(slices.begin(), slices.end());
    EXPECT_EQ(MergeBest(slices).id, whole);
  }
}

TEST_P(SamplingTest, TiesGoToTheLowerId) {
  auto stream = MakeStream(2);
  std::vector<float> logits(200, -1.0f);
  for (uint32_t id : {190u, 70u, 33u, 17u}) {
    logits[id] = 2.0f;
    EXPECT_EQ(Best(logits, 1000, {Greedy()}, *stream)[0].id, 1000 + id);
  }
}

TEST_P(SamplingTest, NanNeverWinsAndAnImpossibleRowSaysSo) {
  auto stream = MakeStream();
  for (const RowSampling& sampling : {Greedy(), Sampled(3, 4)}) {
    std::vector<float> logits(101, kNan);
    Candidate best = Best(logits, 50, {sampling}, *stream)[0];
    EXPECT_EQ(best.score, -kInfinity);
    EXPECT_EQ(best.id, 50u);
    logits[77] = -1e30f;
    best = Best(logits, 50, {sampling}, *stream)[0];
    EXPECT_EQ(best.id, 127u);
    std::fill(logits.begin(), logits.end(), -kInfinity);
    best = Best(logits, 50, {sampling}, *stream)[0];
    EXPECT_EQ(best.score, -kInfinity);
    EXPECT_EQ(best.id, 50u);
    logits[99] = 0;
    EXPECT_EQ(Best(logits, 50, {sampling}, *stream)[0].id, 149u);
  }
}

TEST_P(SamplingTest, NothingHappensWithoutRows) {
  auto stream = MakeStream(2);
  LocalBest({.logits = nullptr,
             .num_rows = 0,
             .width = 100,
             .first_id = 0,
             .sampling = nullptr,
             .best = nullptr},
            *stream);
  LocalLogSumExp(nullptr, 0, 100, nullptr, *stream);
}

std::vector<double> Softmax(const std::vector<float>& logits, double temperature) {
  std::vector<double> p;
  for (float logit : logits) p.push_back(std::exp(logit / temperature));
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& value : p) value /= sum;
  return p;
}

// 20 tokens, 19 degrees of freedom: the statistic exceeds 43.8 by chance once in 1000. The seeds
// are fixed, so the test either always passes or never.
TEST_P(SamplingTest, DrawsFollowTheSoftmax) {
  auto stream = MakeStream();
  const auto logits = RandomFloats(20, 5);
  for (float temperature : {0.5f, 1.0f, 2.0f}) {
    std::vector<uint32_t> counts(logits.size(), 0);
    for (uint32_t position = 0; position < 20000; ++position) {
      ++counts[Best(logits, 0, {Sampled(17, position, temperature)}, *stream)[0].id];
    }
    EXPECT_LT(ChiSquare(counts, Softmax(logits, temperature)), 43.8) << temperature;
  }
}

// log_sum_exp of n floats: each term has a relative error of Exp (3e-7 and 1.2e-7 per unit of
// exponent, up to 12 here), the sum of n terms in runs of 64 vectors up to (64 + n / 256 + 8)
// roundings.
TEST_P(SamplingTest, LogSumExpEqualsDoubleArithmeticAndMerges) {
  for (uint32_t width : {1u, 5u, 16u, 100u, 4096u, 49152u}) {
    auto stream = MakeStream(2);
    constexpr uint32_t kRows = 3;
    auto logits = RandomFloats(size_t{kRows} * width, width);
    if (width > 3) logits[2] = -kInfinity;
    std::vector<LogSumExpPart> parts(kRows, {kPoison, kPoison});
    LocalLogSumExp(logits.data(), kRows, width, parts.data(), *stream);
    const double relative = 3e-7 + 12 * 1.2e-7 + (72 + width / 256) * kRounding;
    for (uint32_t r = 0; r < kRows; ++r) {
      const float* row = logits.data() + r * width;
      ASSERT_EQ(parts[r].max, *std::max_element(row, row + width));
      double sum = 0;
      for (uint32_t i = 0; i < width; ++i) sum += std::exp(static_cast<double>(row[i]));
      const double expected = std::log(sum);
      ASSERT_NEAR(MergeLogSumExp({&parts[r], 1}), expected,
                  relative + 2 * kRounding * std::abs(expected));
      // In two slices.
      if (width < 2) continue;
      const uint32_t cut = width / 3 + 1;
      LogSumExpPart halves[2];
      LocalLogSumExp(row, 1, cut, &halves[0], *stream);
      LocalLogSumExp(row + cut, 1, width - cut, &halves[1], *stream);
      ASSERT_NEAR(MergeLogSumExp(halves), expected, relative + 2 * kRounding * std::abs(expected));
    }
  }
}

TEST_P(SamplingTest, LogSumExpOfImpossibleSlices) {
  auto stream = MakeStream();
  const std::vector<float> logits(40, -kInfinity);
  LogSumExpPart parts[2];
  LocalLogSumExp(logits.data(), 1, 40, &parts[0], *stream);
  EXPECT_EQ(parts[0].max, -kInfinity);
  EXPECT_EQ(parts[0].sum, 0.0f);
  EXPECT_EQ(MergeLogSumExp({parts, 1}), -kInfinity);
  const std::vector<float> zeros(2, 0.0f);
  LocalLogSumExp(zeros.data(), 1, 2, &parts[1], *stream);
  EXPECT_NEAR(MergeLogSumExp(parts), std::log(2.0), 1e-6);
}

TEST_P(SamplingTest, LocalTopIsTheSortedRow) {
  auto stream = MakeStream(2);
  for (uint32_t width : {1u, 20u, 64u, 1000u, 49152u}) {
    constexpr uint32_t kRows = 3;
    auto logits = RandomFloats(size_t{kRows} * width, width, 3.0f);
    for (float& logit : logits) logit = std::round(logit * 16) / 16;  // ties
    logits[width / 2] = kNan;
    logits[width + width / 2] = -kInfinity;
    std::vector<Candidate> best(3 * kMaxTop, {kPoison, 12345678});
    std::vector<Candidate> expected = best;
    const auto rows = [&](std::vector<Candidate>& to) {
      return std::vector<RowTop>{
          {.row = 0, .temperature = 1, .count = 5, .best = &to[0]},
          {.row = 1, .temperature = 0.7f, .count = kMaxTop, .best = &to[kMaxTop]},
          {.row = 2, .temperature = 1.5f, .count = 0, .best = &to[2 * kMaxTop]}};
    };
    const auto mine = rows(best);
    LocalTop({.logits = logits.data(), .width = width, .first_id = 7, .rows = mine}, *stream);
    const auto theirs = rows(expected);
    reference::LocalTop({.logits = logits.data(), .width = width, .first_id = 7, .rows = theirs});
    for (size_t i = 0; i < best.size(); ++i) {
      ASSERT_EQ(best[i].id, expected[i].id) << "width " << width << " at " << i;
      ASSERT_EQ(best[i].score, expected[i].score);
    }
  }
}

TEST(MergeTopTest, PutsTheBestFirstAndDropsTheImpossible) {
  std::vector<Candidate> candidates = {{1, 4}, {-kInfinity, 0}, {3, 9},
                                       {3, 2}, {-kInfinity, 0}, {2, 5}};
  ASSERT_EQ(MergeTop(candidates, 3), 3u);
  EXPECT_EQ(candidates[0].id, 2u);
  EXPECT_EQ(candidates[1].id, 9u);
  EXPECT_EQ(candidates[2].id, 5u);
  EXPECT_EQ(MergeTop(candidates, 100), 4u);
  EXPECT_EQ(candidates[3].id, 4u);
}

TEST(RowSamplingTest, IsFilteredOnlyWhenSamplingWithAFilter) {
  RowSampling sampling = Sampled(1, 1);
  EXPECT_FALSE(sampling.Filtered());
  sampling.top_k = 5;
  EXPECT_TRUE(sampling.Filtered());
  sampling.temperature = 0;
  EXPECT_FALSE(sampling.Filtered());
  sampling = Sampled(1, 1);
  sampling.typical_p = 0.9f;
  EXPECT_TRUE(sampling.Filtered());
}

}  // namespace
}  // namespace essor::kernels
