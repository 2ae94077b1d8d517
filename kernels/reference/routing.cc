#include "kernels/reference/routing.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <vector>

namespace essor::kernels::reference {
namespace {

// NaN counts as -infinity.
float LogitOf(float logit) {
  return std::isnan(logit) ? -std::numeric_limits<float>::infinity() : logit;
}

void RouteRow(const float* logits, const RouterParams& params, uint32_t* ids, float* weights) {
  std::vector<uint32_t> order(params.num_experts);
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return LogitOf(logits[a]) > LogitOf(logits[b]); });
  const double max = LogitOf(logits[order[0]]);
  double sum = 0;
  const uint32_t summed = params.renormalise ? params.top_k : params.num_experts;
  for (uint32_t j = 0; j < summed; ++j) sum += std::exp(LogitOf(logits[order[j]]) - max);
  for (uint32_t j = 0; j < params.top_k; ++j) {
    ids[j] = order[j];
    weights[j] = static_cast<float>(std::exp(LogitOf(logits[order[j]]) - max) / sum);
  }
}

}  // namespace

void Route(const RouterParams& params) {
  for (uint32_t t = 0; t < params.num_rows; ++t) {
    RouteRow(params.logits + static_cast<size_t>(t) * params.num_experts, params,
             params.expert_ids + static_cast<size_t>(t) * params.top_k,
             params.expert_weights + static_cast<size_t>(t) * params.top_k);
  }
}

}  // namespace essor::kernels::reference
