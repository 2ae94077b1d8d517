// The parts of sampling that run on the host whatever the device: merging and filtering.
#include "kernels/sampling.h"

#include <algorithm>
#include <bit>
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

// e^x for x <= 0; 0 below e^-88 and for NaN. Branch-free and without libm, so that loops of it
// become vector code and give the same bits on every processor. 2^n comes from the exponent field,
// 2^r with |r| <= 1/2 from the Taylor series of exp(r ln 2) to degree 7 (relative error below
// 4e-7).
float ExpOfNonPositive(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float unbounded = x * 1.44269504f;
  const float scaled = unbounded > -127.0f ? unbounded : -127.0f;
  const float shifted = scaled + kRound;
  const float r = scaled - (shifted - kRound);
  float p = 1.52527338e-5f;
  p = p * r + 1.54035304e-4f;
  p = p * r + 1.33335581e-3f;
  p = p * r + 9.61812911e-3f;
  p = p * r + 5.55041087e-2f;
  p = p * r + 2.40226507e-1f;
  p = p * r + 6.93147181e-1f;
  p = p * r + 1.0f;
  const uint32_t exponent = (std::bit_cast<uint32_t>(shifted) + (127u - 0x4b400000u)) << 23;
  return p * std::bit_cast<float>(exponent);
}

float ScoreOf(float logit, float temperature) { return logit / temperature; }

// Passes over the vocabulary look at this many tokens at once, in loops that become vector code.
constexpr size_t kBlock = 64;

float MaxScore(std::span<const float> logits, float temperature) {
  float lanes[kBlock];
  for (float& lane : lanes) lane = -kInfinity;
  const size_t whole = logits.size() / kBlock * kBlock;
  for (size_t i = 0; i < whole; i += kBlock) {
    const float* block = logits.data() + i;
    for (size_t j = 0; j < kBlock; ++j) lanes[j] = block[j] > lanes[j] ? block[j] : lanes[j];
  }
  float max = -kInfinity;
  for (const float lane : lanes) max = lane > max ? lane : max;
  for (const float logit : logits.subspan(whole)) max = logit > max ? logit : max;
  return ScoreOf(max, temperature);
}

// A logit below which no score reaches `score_min`: the quotient's rounding allowed for. Where
// extreme values leave no such number, -infinity.
float LogitBound(float score_min, float temperature) {
  const float logit = score_min * temperature;
  const float bound = logit - std::abs(logit) * 1e-6f;
  return std::isfinite(bound) ? bound : -kInfinity;
}

// Whether any of the (up to kBlock) logits from `begin` reaches `bound`; NaN does not.
bool BlockReaches(std::span<const float> logits, size_t begin, float bound) {
  uint32_t reached = 0;
  if (logits.size() - begin >= kBlock) {
    const float* block = logits.data() + begin;
    for (size_t j = 0; j < kBlock; ++j) reached |= block[j] >= bound ? 1u : 0u;
  } else {
    for (const float logit : logits.subspan(begin)) reached |= logit >= bound ? 1u : 0u;
  }
  return reached != 0;
}

// The sum of e^(score - max) over all that are not NaN. In runs of simple loops, which become
// vector code, and the runs in double: the error is that of a few additions.
double SumOfWeights(std::span<const float> logits, float temperature, float max) {
  constexpr size_t kPartialSums = 16;
  constexpr size_t kRun = 1024;
  double total = 0;
  for (size_t begin = 0; begin < logits.size(); begin += kRun) {
    const size_t count = std::min(kRun, logits.size() - begin);
    const float* run = logits.data() + begin;
    float weights[kRun] = {};
    for (size_t i = 0; i < count; ++i) {
      weights[i] = ExpOfNonPositive(ScoreOf(run[i], temperature) - max);
    }
    float sums[kPartialSums] = {};
    for (size_t i = 0; i < kRun; i += kPartialSums) {
      for (size_t j = 0; j < kPartialSums; ++j) sums[j] += weights[i + j];
    }
    for (const float sum : sums) total += sum;
  }
  return total;
}

// The `top_k` best of all tokens, in any order, at the front of `scratch`; returns how many. A
// token is looked at twice only if it beats the worst one kept, which few do.
size_t CollectTopK(std::span<const float> logits, float temperature, size_t top_k,
                   std::span<Candidate> scratch) {
  size_t count = 0;
  float worst = -kInfinity;  // of those that stay for sure; impossible tokens are no candidates
  const size_t capacity = std::min(scratch.size(), std::max<size_t>(2 * top_k, 256));
  const auto keep_best = [&] {
    if (count <= top_k) return;
    const auto last = scratch.begin() + (top_k - 1);
    std::nth_element(scratch.begin(), last, scratch.begin() + count, Better);
    count = top_k;
    worst = last->score;
  };
  for (size_t begin = 0; begin < logits.size(); begin += kBlock) {
    if (!BlockReaches(logits, begin, LogitBound(worst, temperature))) continue;
    const size_t end = std::min(begin + kBlock, logits.size());
    for (size_t id = begin; id < end; ++id) {
      const float score = ScoreOf(logits[id], temperature);
      if (!(score > worst)) continue;  // of equal ones the lower ids, already here, are better
      if (count == capacity) keep_best();
      if (score > worst) scratch[count++] = {score, static_cast<uint32_t>(id)};
    }
  }
  keep_best();
  return count;
}

// The tokens with at least `score_min`, by id; returns how many.
size_t CollectAbove(std::span<const float> logits, float temperature, float score_min,
                    std::span<Candidate> scratch) {
  const float bound = LogitBound(score_min, temperature);
  size_t count = 0;
  for (size_t begin = 0; begin < logits.size(); begin += kBlock) {
    if (!BlockReaches(logits, begin, bound)) continue;
    const size_t end = std::min(begin + kBlock, logits.size());
    for (size_t id = begin; id < end; ++id) {
      const float score = ScoreOf(logits[id], temperature);
      if (score >= score_min && score > -kInfinity) {
        scratch[count++] = {score, static_cast<uint32_t>(id)};
      }
    }
  }
  return count;
}

// How many of `candidates` (at least one) are needed to reach `target` in e^(score - max), best
// first; sorts that many to the front. The order is made piece by piece, each four times as long as
// the one before: a peaked distribution, the usual case, sorts little.
size_t KeepMass(std::span<Candidate> candidates, float max, double target) {
  double reached = 0;
  size_t sorted = 0;
  for (size_t piece = 64; sorted < candidates.size(); piece *= 4) {
    const auto begin = candidates.begin() + sorted;
    const size_t count = std::min(piece, candidates.size() - sorted);
    std::nth_element(begin, begin + (count - 1), candidates.end(), Better);
    std::sort(begin, begin + count, Better);
    for (size_t i = 0; i < count; ++i, ++sorted) {
      reached += ExpOfNonPositive(candidates[sorted].score - max);
      if (reached >= target) return sorted + 1;
    }
  }
  return candidates.size();
}

// What is left of `logits` after top-k and top-p, in `scratch`; returns how many. Tokens that the
// min-p threshold `score_min` removes anyway may be among them or not.
size_t CollectSurvivors(std::span<const float> logits, const RowSampling& sampling, float max,
                        float score_min, std::span<Candidate> scratch) {
  const float temperature = sampling.temperature;
  if (sampling.top_k > 0 && static_cast<size_t>(sampling.top_k) < logits.size()) {
    const size_t count =
        CollectTopK(logits, temperature, static_cast<size_t>(sampling.top_k), scratch);
    if (!(sampling.top_p < 1)) return count;
    double total = 0;
    for (const Candidate& c : scratch.first(count)) total += ExpOfNonPositive(c.score - max);
    return KeepMass(scratch.first(count), max, sampling.top_p * total);
  }
  if (!(sampling.top_p < 1)) return CollectAbove(logits, temperature, score_min, scratch);
  // Tokens each below (1 - top_p) / n of the mass together stay below 1 - top_p of it: the smallest
  // set lies within the others. Half of that bound, so that no rounding can matter.
  const double total = SumOfWeights(logits, temperature, max);
  const double share =
      0.5 * std::max(0.0, 1.0 - sampling.top_p) / static_cast<double>(logits.size());
  const auto bound = static_cast<float>(max + std::log(share * total));
  const size_t count = CollectAbove(logits, temperature, std::min(bound, max), scratch);
  return KeepMass(scratch.first(count), max, sampling.top_p * total);
}

}  // namespace

Candidate MergeBest(std::span<const Candidate> slices) {
  ESSOR_CHECK(!slices.empty());
  return *std::min_element(slices.begin(), slices.end(), Better);
}

uint32_t SampleFiltered(std::span<const float> logits, const RowSampling& sampling,
                        std::span<Candidate> scratch) {
  ESSOR_CHECK(scratch.size() >= logits.size());
  const float max = MaxScore(logits, sampling.temperature);
  if (max == -kInfinity) return 0;
  const float score_min = sampling.min_p > 0 ? max + std::log(sampling.min_p) : -kInfinity;
  const size_t count = CollectSurvivors(logits, sampling, max, score_min, scratch);
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
