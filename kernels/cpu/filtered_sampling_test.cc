#include "kernels/filtered_sampling.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/sampling_test_support.h"
#include "kernels/gumbel.h"
#include "kernels/reference/sampling.h"

namespace essor::kernels {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The ids left by typical sampling, as its paper reads.
template <typename Scaled>
std::vector<uint32_t> Typical(std::vector<uint32_t> ids, const Scaled& scaled, double typical_p) {
  if (typical_p >= 1 || ids.empty()) return ids;
  double total = 0;
  for (uint32_t id : ids) total += std::exp(double{scaled(id)} - scaled(ids[0]));
  const auto log_p = [&](uint32_t id) {
    return double{scaled(id)} - scaled(ids[0]) - std::log(total);
  };
  double entropy = 0;
  for (uint32_t id : ids) entropy -= std::exp(log_p(id)) * log_p(id);
  const auto distance = [&](uint32_t id) { return std::abs(-log_p(id) - entropy); };
  std::vector<uint32_t> sorted = ids;
  std::stable_sort(sorted.begin(), sorted.end(), [&](uint32_t a, uint32_t b) {
    return scaled(a) != scaled(b) && distance(a) < distance(b);
  });
  double reached = 0;
  size_t kept = 0;
  while (kept < sorted.size() && reached < typical_p) reached += std::exp(log_p(sorted[kept++]));
  sorted.resize(kept);
  return sorted;
}

// SampleFiltered as its contract reads, with a full sort.
std::vector<uint32_t> Survivors(const std::vector<float>& logits, const RowSampling& sampling) {
  std::vector<uint32_t> ids;
  for (uint32_t id = 0; id < logits.size(); ++id) {
    if (logits[id] > -kInfinity) ids.push_back(id);
  }
  const auto scaled = [&](uint32_t id) { return logits[id] / sampling.temperature; };
  std::stable_sort(ids.begin(), ids.end(),
                   [&](uint32_t a, uint32_t b) { return scaled(a) > scaled(b); });
  if (sampling.top_k > 0) ids.resize(std::min<size_t>(ids.size(), sampling.top_k));
  double total = 0;
  for (uint32_t id : ids) total += std::exp(scaled(id) - scaled(ids[0]));
  double reached = 0;
  size_t kept = 0;
  while (kept < ids.size() &&
         (kept == 0 || sampling.top_p >= 1 || reached < sampling.top_p * total)) {
    reached += std::exp(scaled(ids[kept++]) - scaled(ids[0]));
  }
  ids.resize(kept);
  const float first = ids.empty() ? 0 : scaled(ids[0]);
  std::erase_if(ids, [&](uint32_t id) { return std::exp(scaled(id) - first) < sampling.min_p; });
  return Typical(ids, scaled, sampling.typical_p);
}

TEST(SampleFilteredTest, DrawsTheBestPerturbedSurvivor) {
  for (uint32_t trial = 0; trial < 300; ++trial) {
    const uint32_t width = 1 + trial * 37 % 700;
    auto logits = RandomFloats(width, trial, 1.0f + trial % 4);
    if (trial % 5 == 0) logits[trial % width] = kNan;
    if (trial % 7 == 0 && width > 1) logits[(trial + 1) % width] = -kInfinity;
    if (trial % 4 == 0) {
      for (float& logit : logits) logit = std::round(logit * 4) / 4;
    }
    RowSampling sampling = Sampled(trial, trial * 3, 0.3f + 0.1f * (trial % 12));
    if (trial % 2 == 0) sampling.top_k = 1 + static_cast<int32_t>(trial % 50);
    if (trial % 3 != 0) sampling.top_p = 0.05f + 0.01f * (trial % 94);
    if (trial % 3 == 1) sampling.min_p = 0.001f * (trial % 300);
    if (trial % 5 < 2) sampling.typical_p = 0.05f + 0.01f * (trial % 90);

    Candidate best = {-kInfinity, 0};
    for (uint32_t id : Survivors(logits, sampling)) {
      const float score =
          logits[id] / sampling.temperature + Gumbel(sampling.seed, sampling.position, id);
      if (score > best.score || (score == best.score && id < best.id)) best = {score, id};
    }
    EXPECT_EQ(SampleFiltered(logits, sampling), best.id) << "trial " << trial;
  }
}

TEST(SampleFilteredTest, WithoutFiltersDrawsAsLocalBest) {
  auto stream = CpuStream::Create({});
  for (uint32_t trial = 0; trial < 50; ++trial) {
    const auto logits = RandomFloats(1000, trial);
    const RowSampling sampling = Sampled(trial, 1);
    EXPECT_EQ(SampleFiltered(logits, sampling), Best(logits, 0, {sampling}, *stream)[0].id);
  }
}

TEST(SampleFilteredTest, NarrowFiltersLeaveTheMostProbable) {
  const std::vector<float> logits = {0.1f, 3.0f, -2.0f, 3.0f, 1.0f};
  for (uint32_t position = 0; position < 200; ++position) {
    RowSampling top_k = Sampled(1, position, 5.0f);
    top_k.top_k = 1;
    EXPECT_EQ(SampleFiltered(logits, top_k), 1u);  // of the equal ones the lower id
    RowSampling top_p = Sampled(1, position, 5.0f);
    top_p.top_p = 0.0f;  // at least one
    EXPECT_EQ(SampleFiltered(logits, top_p), 1u);
    RowSampling min_p = Sampled(1, position, 5.0f);
    min_p.min_p = 1.0f;
    EXPECT_THAT(SampleFiltered(logits, min_p), ::testing::AnyOf(1u, 3u));
    RowSampling huge_k = Sampled(1, position, 5.0f);
    huge_k.top_k = 1000000;
    EXPECT_LT(SampleFiltered(logits, huge_k), 5u);
  }
}

// Probabilities 0.5, 0.25, 0.125, 0.0625, 0.0625 at temperature 1. top_p 0.8 needs three tokens
// (0.875), whose renormalised probabilities are 4/7, 2/7, 1/7; 2 degrees of freedom, 13.8 is
// exceeded by chance once in 1000.
TEST(SampleFilteredTest, DrawsFollowTheRenormalisedSurvivors) {
  std::vector<float> logits;
  for (double p : {0.5, 0.25, 0.125, 0.0625, 0.0625}) {
    logits.push_back(static_cast<float>(std::log(p)));
  }
  std::vector<uint32_t> counts(5, 0);
  for (uint32_t position = 0; position < 20000; ++position) {
    RowSampling sampling = Sampled(99, position, 1.0f);
    sampling.top_p = 0.8f;
    ++counts[SampleFiltered(logits, sampling)];
  }
  EXPECT_EQ(counts[3] + counts[4], 0u);
  EXPECT_LT(ChiSquare({counts[0], counts[1], counts[2]}, {4.0 / 7, 2.0 / 7, 1.0 / 7}), 13.8);
}

TEST(SampleFilteredTest, AnImpossibleRowGivesTokenZero) {
  RowSampling sampling = Sampled(1, 1);
  sampling.top_p = 0.9f;
  EXPECT_EQ(SampleFiltered(std::vector<float>(10, kNan), sampling), 0u);
  EXPECT_EQ(SampleFiltered(std::vector<float>(10, -kInfinity), sampling), 0u);
}

TEST(SampleFilteredTest, ARowWithAnInfiniteLogitGivesTokenZero) {
  for (float typical_p : {0.5f, 1.0f}) {
    RowSampling sampling = Sampled(1, 1);
    sampling.top_p = 0.9f;
    sampling.typical_p = typical_p;
    EXPECT_EQ(SampleFiltered(std::vector<float>{0, 1, kInfinity}, sampling), 0u);
  }
}

class FilterSumsTest : public EachIsaTest {};
INSTANTIATE_TEST_SUITE_P(Isa, FilterSumsTest, ::testing::ValuesIn(kAllIsas), IsaTestName);

// The integers are the same however the vocabulary is cut and whoever adds them.
TEST_P(FilterSumsTest, AnySplitGivesTheSameIntegers) {
  auto stream = MakeStream(2);
  for (uint32_t width : {1u, 63u, 1024u, 3001u, 49152u}) {
    auto logits = RandomFloats(width, width, 4.0f);
    if (width > 10) {
      logits[3] = kNan;
      logits[7] = -kInfinity;
      logits[9] = -1e30f;
    }
    const float temperature = 0.8f;
    float max = -kInfinity;
    for (float logit : logits) max = std::fmax(max, logit / temperature);
    FilterSums whole;
    const RowSums row{
        .row = 0, .temperature = temperature, .max = max, .spread = true, .sums = &whole};
    reference::LocalFilterSums({.logits = logits.data(), .width = width, .rows = {&row, 1}});
    double mass = 0;
    for (float logit : logits) {
      if (!std::isnan(logit)) mass += std::exp(double{logit} / temperature - max);
    }
    EXPECT_NEAR(static_cast<double>(whole.mass) * 0x1p-40, mass, 1e-6 * mass + width * 0x1p-40);
    FilterSums sum;
    for (uint32_t begin = 0; begin < width;) {
      const uint32_t end = std::min(width, begin + 1 + (begin * 7 + 1500) % 2000);
      FilterSums part;
      RowSums slice = row;
      slice.sums = &part;
      LocalFilterSums({.logits = logits.data() + begin, .width = end - begin, .rows = {&slice, 1}},
                      *stream);
      sum.mass += part.mass;
      sum.spread += part.spread;
      begin = end;
    }
    EXPECT_EQ(sum.mass, whole.mass) << "width " << width;
    EXPECT_EQ(sum.spread, whole.spread) << "width " << width;
  }
}

// What the ranks of a stage do: sums and best tokens of each slice, merged.
std::optional<uint32_t> DrawSplit(const std::vector<float>& logits, const RowSampling& sampling,
                                  const std::vector<uint32_t>& cuts, uint32_t count,
                                  Stream& stream) {
  RowSampling greedy = sampling;
  greedy.temperature = 0;
  const float max = Best(logits, 0, {greedy}, stream)[0].score / sampling.temperature;
  std::vector<Candidate> best;
  FilterSums sums;
  for (size_t i = 0; i + 1 < cuts.size(); ++i) {
    const uint32_t width = cuts[i + 1] - cuts[i];
    std::vector<Candidate> mine(count);
    const RowTop top{
        .row = 0, .temperature = sampling.temperature, .count = count, .best = mine.data()};
    LocalTop({.logits = &logits[cuts[i]], .width = width, .first_id = cuts[i], .rows = {&top, 1}},
             stream);
    FilterSums part;
    const RowSums row{.row = 0,
                      .temperature = sampling.temperature,
                      .max = max,
                      .spread = sampling.typical_p < 1,
                      .sums = &part};
    if (NeedsFilterSums(sampling)) {
      LocalFilterSums({.logits = &logits[cuts[i]], .width = width, .rows = {&row, 1}}, stream);
    }
    sums.mass += part.mass;
    sums.spread += part.spread;
    best.insert(best.end(), mine.begin(), mine.end());
  }
  const size_t kept = MergeTop(best, count);
  return DrawFiltered({.best = {best.data(), kept}, .all = kept < count, .max = max, .sums = sums},
                      sampling);
}

TEST(DrawFilteredTest, IsSampleFilteredOrDoesNotKnow) {
  auto stream = CpuStream::Create({});
  uint32_t num_known = 0;
  constexpr uint32_t kTrials = 600;
  for (uint32_t trial = 0; trial < kTrials; ++trial) {
    std::mt19937 generator(trial);
    const uint32_t width = 100 + generator() % 3000;
    auto logits = RandomFloats(width, trial, 1.0f + trial % 6);
    if (trial % 4 == 0) {
      for (float& logit : logits) logit = std::round(logit * 4) / 4;
    }
    if (trial % 9 == 0) std::fill(logits.begin() + 30, logits.end(), -kInfinity);
    RowSampling sampling = Sampled(trial, trial * 3, 0.2f + 0.1f * (trial % 12));
    const uint32_t filters = 1 + generator() % 15;
    if (filters & 1) sampling.top_k = 1 + static_cast<int32_t>(generator() % 90);
    if (filters & 2) sampling.top_p = 0.01f * (5 + generator() % 95);
    if (filters & 4) sampling.min_p = 0.01f * (1 + generator() % 60);
    if (filters & 8) sampling.typical_p = 0.01f * (5 + generator() % 95);
    std::vector<uint32_t> cuts = {0, width};
    for (uint32_t i = 0; i < trial % 4; ++i) cuts.push_back(generator() % width);
    std::sort(cuts.begin(), cuts.end());
    cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
    const std::optional<uint32_t> token = DrawSplit(logits, sampling, cuts, 64, *stream);
    if (!token.has_value()) continue;
    ++num_known;
    ASSERT_EQ(*token, SampleFiltered(logits, sampling)) << "trial " << trial;
  }
  EXPECT_GT(num_known, kTrials / 2);
  EXPECT_LT(num_known, kTrials);
}

// All 64 best tokens are equally probable and the mass needs more: the rest cannot be guessed.
TEST(DrawFilteredTest, DoesNotKnowWhatLiesBeyondTheBest) {
  auto stream = CpuStream::Create({});
  const std::vector<float> flat(1000, 1.0f);
  for (uint32_t filter = 0; filter < 4; ++filter) {
    RowSampling sampling = Sampled(1, filter);
    if (filter == 0) sampling.top_k = 65;
    if (filter == 1) sampling.top_p = 0.1f;
    if (filter == 2) sampling.min_p = 0.5f;
    if (filter == 3) sampling.typical_p = 0.1f;
    EXPECT_FALSE(DrawSplit(flat, sampling, {0, 400, 1000}, 64, *stream).has_value()) << filter;
    if (filter == 0) sampling.top_k = 64;
    if (filter == 1) sampling.top_p = 0.0639f;
    if (filter == 3) sampling.typical_p = 0.0639f;
    EXPECT_EQ(DrawSplit(flat, sampling, {0, 400, 1000}, 64, *stream).has_value(), filter != 2);
  }
}

}  // namespace
}  // namespace essor::kernels
