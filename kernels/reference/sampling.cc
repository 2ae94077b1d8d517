#include "kernels/reference/sampling.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include "kernels/filter_sums.h"
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

void LocalTop(const LocalTopParams& params) {
  for (const RowTop& row : params.rows) {
    const float* logits = params.logits + static_cast<size_t>(row.row) * params.width;
    std::vector<Candidate> all;
    for (uint32_t i = 0; i < params.width; ++i) {
      const float score = logits[i] / row.temperature;
      if (score > -kInfinity) all.push_back({score, params.first_id + i});
    }
    std::sort(all.begin(), all.end(), Better);
    all.resize(row.count, {-kInfinity, 0});
    std::copy(all.begin(), all.end(), row.best);
  }
}

void LocalFilterSums(const LocalFilterSumsParams& params) {
  for (const RowSums& row : params.rows) {
    const float* logits = params.logits + static_cast<size_t>(row.row) * params.width;
    *row.sums = SumsOfSlice({logits, params.width}, row.temperature, row.max, row.spread);
  }
}

void AdjustLogits(const AdjustLogitsParams& params) {
  for (const RowAdjustment& row : params.rows) {
    float* logits = params.logits + static_cast<size_t>(row.row) * params.width;
    for (uint32_t column = 0; column < params.width; ++column) {
      float logit = logits[column];
      for (const auto& [biased, bias] : row.biases) {
        if (biased == column) logit += bias;
      }
      const TokenMark mark = row.marks.empty() ? 0 : row.marks[column];
      if (mark > 0) {
        logit = logit > 0 ? logit / row.repetition_penalty : logit * row.repetition_penalty;
      }
      const uint32_t count = mark / 2;
      if (count > 0) {
        logit -= static_cast<float>(count) * row.frequency_penalty;
        logit -= row.presence_penalty;
      }
      const bool blocked =
          std::find(row.blocked.begin(), row.blocked.end(), column) != row.blocked.end();
      logits[column] = blocked ? -kInfinity : logit;
    }
  }
}

}  // namespace essor::kernels::reference
