#include "kernels/reference/sampling.h"

#include <cmath>
#include <cstddef>
#include <limits>

#include "kernels/gumbel.h"

namespace essor::kernels::reference {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

}  // namespace

void LocalBest(const LocalBestParams& params) {
  for (uint32_t r = 0; r < params.num_rows; ++r) {
    const float* logits = params.logits + static_cast<size_t>(r) * params.width;
    const RowSampling& sampling = params.sampling[r];
    Candidate best = {-kInfinity, params.first_id};
    for (uint32_t i = 0; i < params.width; ++i) {
      const uint32_t id = params.first_id + i;
      float score = logits[i];
      if (sampling.temperature > 0) {
        score = score / sampling.temperature + Gumbel(sampling.seed, sampling.position, id);
      }
      if (score > best.score) best = {score, id};
    }
    params.best[r] = best;
  }
}

void LocalLogSumExp(const float* logits, uint32_t num_rows, uint32_t width, LogSumExpPart* parts) {
  for (uint32_t r = 0; r < num_rows; ++r) {
    const float* row = logits + static_cast<size_t>(r) * width;
    float max = -kInfinity;
    for (uint32_t i = 0; i < width; ++i) max = row[i] > max ? row[i] : max;
    double sum = 0;
    // Where nothing is possible the differences would be NaN; the sum of no terms is 0.
    for (uint32_t i = 0; i < width && max > -kInfinity; ++i) {
      sum += std::exp(static_cast<double>(row[i]) - max);
    }
    parts[r] = {max, static_cast<float>(sum)};
  }
}

}  // namespace essor::kernels::reference
