// The parts of sampling that run on the host whatever the device: merging and collecting.
#include "kernels/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/check.h"
#include "kernels/logit_blocks.h"

namespace essor::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

}  // namespace

Candidate MergeBest(std::span<const Candidate> slices) {
  ESSOR_CHECK(!slices.empty());
  return *std::min_element(slices.begin(), slices.end(), Better);
}

size_t MergeTop(std::span<Candidate> candidates, size_t count) {
  const auto possible =
      std::partition(candidates.begin(), candidates.end(),
                     [](const Candidate& candidate) { return candidate.score > -kInfinity; });
  const size_t kept = std::min<size_t>(count, static_cast<size_t>(possible - candidates.begin()));
  std::partial_sort(candidates.begin(), candidates.begin() + kept, possible, Better);
  return kept;
}

// A token is looked at twice only if it beats the worst one kept, which few do.
size_t CollectBest(std::span<const float> logits, uint32_t first_id, float temperature,
                   size_t top_k, std::span<Candidate> scratch) {
  if (top_k == 0) return 0;
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
  for (size_t begin = 0; begin < logits.size(); begin += kLogitBlock) {
    if (!BlockReaches(logits, begin, LogitBound(worst, temperature))) continue;
    const size_t end = std::min(begin + kLogitBlock, logits.size());
    for (size_t i = begin; i < end; ++i) {
      const float score = logits[i] / temperature;
      if (!(score > worst)) continue;  // of equal ones the lower ids, already here, are better
      if (count == capacity) keep_best();
      if (score > worst) scratch[count++] = {score, first_id + static_cast<uint32_t>(i)};
    }
  }
  keep_best();
  return count;
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
