// Compiled without contraction: what it decides has to be the same on every processor.
#include "kernels/filtered_sampling.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include "common/check.h"
#include "kernels/filter_sums.h"
#include "kernels/gumbel.h"
#include "kernels/logit_blocks.h"

namespace essor::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

float MaxScore(std::span<const float> logits, float temperature) {
  float lanes[kLogitBlock];
  for (float& lane : lanes) lane = -kInfinity;
  const size_t whole = logits.size() / kLogitBlock * kLogitBlock;
  for (size_t i = 0; i < whole; i += kLogitBlock) {
    const float* block = logits.data() + i;
    for (size_t j = 0; j < kLogitBlock; ++j) lanes[j] = block[j] > lanes[j] ? block[j] : lanes[j];
  }
  float max = -kInfinity;
  for (const float lane : lanes) max = lane > max ? lane : max;
  for (const float logit : logits.subspan(whole)) max = logit > max ? logit : max;
  return max / temperature;
}

// The tokens with at least `score_min`, by id; returns how many.
size_t CollectAbove(std::span<const float> logits, float temperature, float score_min,
                    std::span<Candidate> scratch) {
  const float bound = LogitBound(score_min, temperature);
  size_t count = 0;
  for (size_t begin = 0; begin < logits.size(); begin += kLogitBlock) {
    if (!BlockReaches(logits, begin, bound)) continue;
    const size_t end = std::min(begin + kLogitBlock, logits.size());
    for (size_t id = begin; id < end; ++id) {
      const float score = logits[id] / temperature;
      if (score >= score_min && score > -kInfinity) {
        scratch[count++] = {score, static_cast<uint32_t>(id)};
      }
    }
  }
  return count;
}

// How many of `candidates`, in the order `first`, reach `target` in mass; sorts that many to the
// front. Nothing where all do not, or where `certain` is false of one before. The order is made
// piece by piece, each four times as long as the one before: a peaked distribution, the usual case,
// sorts little.
template <typename First, typename Certain>
std::optional<size_t> CountToMass(std::span<Candidate> candidates, float max, double target,
                                  const First& first, const Certain& certain) {
  uint64_t reached = 0;
  size_t sorted = 0;
  for (size_t piece = 64; sorted < candidates.size(); piece *= 4) {
    const auto begin = candidates.begin() + sorted;
    const size_t count = std::min(piece, candidates.size() - sorted);
    std::nth_element(begin, begin + (count - 1), candidates.end(), first);
    std::sort(begin, begin + count, first);
    for (size_t i = 0; i < count; ++i, ++sorted) {
      if (!certain(candidates[sorted])) return std::nullopt;
      reached += SumsOfToken(candidates[sorted].score, max).mass;
      if (static_cast<double>(reached) >= target) return sorted + 1;
    }
  }
  return std::nullopt;
}

FilterSums SumsOfBest(const FilterRow& row) {
  FilterSums sums;
  for (const Candidate& candidate : row.best) {
    const FilterSums token = SumsOfToken(candidate.score, row.max);
    sums.mass += token.mass;
    sums.spread += token.spread;
  }
  return sums;
}

// `count` tokens are left, those at the front.
void Keep(FilterRow* row, size_t count) {
  row->best = row->best.first(count);
  row->all = true;
  row->sums = SumsOfBest(*row);
}

float MinScore(float max, const RowSampling& sampling) {
  return max + static_cast<float>(std::log(static_cast<double>(sampling.min_p)));
}

// Each of these is false where tokens beyond row->best may be left.

bool KeepTopK(FilterRow* row, const RowSampling& sampling) {
  const auto top_k = static_cast<size_t>(std::max(sampling.top_k, 0));
  if (top_k == 0) return true;
  if (row->best.size() < top_k && !row->all) return false;
  if (row->best.size() > top_k) {
    std::nth_element(row->best.begin(), row->best.begin() + (top_k - 1), row->best.end(), Better);
  }
  Keep(row, std::min(top_k, row->best.size()));
  return true;
}

bool KeepTopP(FilterRow* row, const RowSampling& sampling) {
  if (!(sampling.top_p < 1)) return true;
  const double target = static_cast<double>(sampling.top_p) * static_cast<double>(row->sums.mass);
  const auto count = CountToMass(row->best, row->max, target, Better,
                                 [](const Candidate& /*candidate*/) { return true; });
  if (!count.has_value()) return row->all;
  Keep(row, *count);
  return true;
}

bool KeepMinP(FilterRow* row, const RowSampling& sampling) {
  if (!(sampling.min_p > 0)) return true;
  const float score_min = MinScore(row->max, sampling);
  const auto kept =
      std::partition(row->best.begin(), row->best.end(),
                     [&](const Candidate& candidate) { return candidate.score >= score_min; });
  if (kept == row->best.end() && !row->all) return false;
  Keep(row, static_cast<size_t>(kept - row->best.begin()));
  return true;
}

// With max - score = d and Z the sum of e^-d, -log p is d + log Z and the entropy the mean of d
// plus log Z: how far a token is from the entropy is how far its d is from the mean.
bool KeepTypical(FilterRow* row, const RowSampling& sampling) {
  if (!(sampling.typical_p < 1) || row->best.empty()) return true;
  const double mean = static_cast<double>(row->sums.spread) / static_cast<double>(row->sums.mass);
  const auto distance = [&](const Candidate& candidate) {
    return std::abs(static_cast<double>(row->max - candidate.score) - mean);
  };
  // Tokens beyond `best` are at least as far above the mean as its worst.
  const Candidate& worst = *std::max_element(row->best.begin(), row->best.end(), Better);
  const double known = row->all ? kInfinity : static_cast<double>(row->max - worst.score) - mean;
  const double target =
      static_cast<double>(sampling.typical_p) * static_cast<double>(row->sums.mass);
  const auto count = CountToMass(
      row->best, row->max, target,
      [&](const Candidate& a, const Candidate& b) {
        const double of_a = distance(a);
        const double of_b = distance(b);
        return of_a != of_b ? of_a < of_b : Better(a, b);
      },
      [&](const Candidate& candidate) { return distance(candidate) <= known; });
  if (!count.has_value()) return row->all;
  Keep(row, *count);
  return true;
}

// Of a whole row: all tokens that the filters may leave, in `scratch`; returns how many.
size_t CollectSurvivors(std::span<const float> logits, const RowSampling& sampling,
                        const FilterRow& row, std::span<Candidate> scratch) {
  const float temperature = sampling.temperature;
  if (sampling.top_p < 1) {
    // Tokens each below (1 - top_p) / n of the mass together stay below 1 - top_p of it: the
    // smallest set lies within the others. Half of that bound, so that no rounding can matter.
    const double total = static_cast<double>(row.sums.mass) / kFilterUnits;
    const double share =
        0.5 * std::max(0.0, 1.0 - sampling.top_p) / static_cast<double>(logits.size());
    const auto bound = static_cast<float>(row.max + std::log(share * total));
    return CollectAbove(logits, temperature, std::min(bound, row.max), scratch);
  }
  const float score_min = sampling.min_p > 0 ? MinScore(row.max, sampling) : -kInfinity;
  return CollectAbove(logits, temperature, score_min, scratch);
}

}  // namespace

FilterSums SumsOfSlice(std::span<const float> logits, float temperature, float max, bool spread) {
  FilterSums sums;
  for (const float logit : logits) {
    const FilterSums token = SumsOfToken(logit / temperature, max);
    sums.mass += token.mass;
    sums.spread += spread ? token.spread : 0;
  }
  return sums;
}

bool NeedsFilterSums(const RowSampling& sampling) {
  if (sampling.top_k > 0) return false;
  return sampling.top_p < 1 || (sampling.typical_p < 1 && !(sampling.min_p > 0));
}

std::optional<uint32_t> DrawFiltered(FilterRow row, const RowSampling& sampling) {
  if (!KeepTopK(&row, sampling) || !KeepTopP(&row, sampling) || !KeepMinP(&row, sampling) ||
      !KeepTypical(&row, sampling) || !row.all) {
    return std::nullopt;
  }
  Candidate best = {-kInfinity, 0};
  for (const Candidate& c : row.best) {
    const Candidate drawn = {c.score + Gumbel(sampling.seed, sampling.position, c.id), c.id};
    if (Better(drawn, best)) best = drawn;
  }
  return best.id;
}

uint32_t SampleFiltered(std::span<const float> logits, const RowSampling& sampling,
                        std::span<Candidate> scratch) {
  ESSOR_CHECK(scratch.size() >= logits.size());
  FilterRow row{.best = {}, .all = true, .max = MaxScore(logits, sampling.temperature), .sums = {}};
  if (!std::isfinite(row.max)) return 0;
  RowSampling rest = sampling;
  if (sampling.top_k > 0 && static_cast<size_t>(sampling.top_k) < logits.size()) {
    row.best = scratch.first(
        CollectBest(logits, 0, sampling.temperature, static_cast<size_t>(sampling.top_k), scratch));
  } else {
    rest.top_k = 0;  // leaves everything
    if (NeedsFilterSums(rest)) {
      row.sums = SumsOfSlice(logits, rest.temperature, row.max, rest.typical_p < 1);
    }
    row.best = scratch.first(CollectSurvivors(logits, rest, row, scratch));
  }
  const std::optional<uint32_t> token = DrawFiltered(row, rest);
  ESSOR_CHECK(token.has_value());
  return *token;
}

uint32_t SampleFiltered(std::span<const float> logits, const RowSampling& sampling) {
  std::vector<Candidate> scratch(logits.size());
  return SampleFiltered(logits, sampling, scratch);
}

}  // namespace essor::kernels
