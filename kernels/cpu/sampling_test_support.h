// Shared by the tests of sampling.
#pragma once

#include <cstdint>
#include <numeric>
#include <vector>

#include "kernels/cpu/row_test_support.h"
#include "kernels/sampling.h"

namespace essor::kernels {

inline RowSampling Sampled(uint64_t seed, uint64_t position, float temperature = 0.8f) {
  return {.temperature = temperature,
          .top_p = 1,
          .top_k = 0,
          .min_p = 0,
          .seed = seed,
          .position = position};
}

inline std::vector<Candidate> Best(const std::vector<float>& logits, uint32_t first_id,
                                   const std::vector<RowSampling>& rows, Stream& stream) {
  std::vector<Candidate> best(rows.size(), {kPoison, 12345678});
  LocalBest({.logits = logits.data(),
             .num_rows = static_cast<uint32_t>(rows.size()),
             .width = static_cast<uint32_t>(logits.size() / rows.size()),
             .first_id = first_id,
             .sampling = rows.data(),
             .best = best.data()},
            stream);
  return best;
}

// Pearson's statistic of counts against probabilities.
inline double ChiSquare(const std::vector<uint32_t>& counts,
                        const std::vector<double>& probabilities) {
  const double total = std::accumulate(counts.begin(), counts.end(), 0.0);
  double statistic = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    const double expected = total * probabilities[i];
    statistic += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  return statistic;
}

}  // namespace essor::kernels
