// The parts of sampling that run on the host whatever the device: merging and filtering.
#include "kernels/sampling.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include "common/check.h"
#include "kernels/gumbel.h"

namespace essor::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A strict total order on candidates without NaN: the better first.
bool Better(const Candidate& a, const Candidate& b) {
  return a.score != b.score ? a.score > b.score : a.id < b.id;
}

// How many of `candidates` (at least one) are needed to reach `top_p` of their probability mass;
// sorts that many to the front. The order is made piece by piece, each four times as long as the
// one before: a peaked distribution, the usual case, sorts little.
size_t KeepTopP(std::span<Candidate> candidates, float max, float top_p) {
  double total = 0;
  for (const Candidate& c : candidates) total += std::exp(static_cast<double>(c.score) - max);
  const double target = top_p * total;
  double reached = 0;
  size_t sorted = 0;
  for (size_t piece = 64; sorted < candidates.size(); piece *= 4) {
    const auto begin = candidates.begin() + sorted;
    const size_t count = std::min(piece, candidates.size() - sorted);
    std::nth_element(begin, begin + (count - 1), candidates.end(), Better);
    std::sort(begin, begin + count, Better);
    for (size_t i = 0; i < count; ++i, ++sorted) {
      reached += std::exp(static_cast<double>(candidates[sorted].score) - max);
      if (reached >= target) return sorted + 1;
    }
  }
  return candidates.size();
}

}  // namespace

Candidate MergeBest(std::span<const Candidate> slices) {
  ESSOR_CHECK(!slices.empty());
  return *std::min_element(slices.begin(), slices.end(), Better);
}

uint32_t SampleFiltered(std::span<const float> logits, const RowSampling& sampling,
                        std::span<Candidate> scratch) {
  ESSOR_CHECK(scratch.size() >= logits.size());
  size_t count = 0;
  float max = -kInfinity;
  for (size_t id = 0; id < logits.size(); ++id) {
    const float score = logits[id] / sampling.temperature;
    if (!(score > -kInfinity)) continue;  // impossible, or NaN
    scratch[count++] = {score, static_cast<uint32_t>(id)};
    max = std::max(max, score);
  }
  if (count == 0) return 0;

  const size_t top_k = sampling.top_k > 0 ? static_cast<size_t>(sampling.top_k) : count;
  if (top_k < count) {
    std::nth_element(scratch.begin(), scratch.begin() + (top_k - 1), scratch.begin() + count,
                     Better);
    count = top_k;
  }
  if (sampling.top_p < 1) count = KeepTopP(scratch.first(count), max, sampling.top_p);

  const float score_min = sampling.min_p > 0 ? max + std::log(sampling.min_p) : -kInfinity;
  Candidate best = {-kInfinity, 0};
  for (const Candidate& c : scratch.first(count)) {
    if (c.score < score_min) continue;
    const Candidate drawn = {c.score + Gumbel(sampling.seed, sampling.position, c.id), c.id};
    if (Better(drawn, best)) best = drawn;
  }
  return best.id;
}

uint32_t SampleFiltered(std::span<const float> logits, const RowSampling& sampling) {
  std::vector<Candidate> scratch(logits.size());
  return SampleFiltered(logits, sampling, scratch);
}

float MergeLogSumExp(std::span<const LogSumExpPart> parts) {
  float max = -kInfinity;
  for (const LogSumExpPart& part : parts) max = std::max(max, part.max);
  if (max == -kInfinity) return -kInfinity;  // every logit is impossible
  double sum = 0;
  for (const LogSumExpPart& part : parts) {
    sum += part.sum * std::exp(static_cast<double>(part.max) - max);
  }
  return static_cast<float>(max + std::log(sum));
}

}  // namespace essor::kernels
