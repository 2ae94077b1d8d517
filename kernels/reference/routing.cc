#include "kernels/reference/routing.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <limits>
#include <numeric>
#include <vector>

namespace essor::kernels::reference {
namespace {

// NaN counts as -infinity.
float LogitOf(float logit) {
  return std::isnan(logit) ? -std::numeric_limits<float>::infinity() : logit;
}

std::vector<float> ChoiceValues(const std::vector<float>& scores, const RouterParams& params) {
  std::vector<float> values(params.num_experts);
  for (uint32_t e = 0; e < params.num_experts; ++e) {
    values[e] = LogitOf(params.bias == nullptr ? scores[e] : scores[e] + params.bias[e]);
  }
  return values;
}

std::vector<uint32_t> SortedByValue(const std::vector<float>& values) {
  std::vector<uint32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return values[a] > values[b]; });
  return order;
}

void LimitToGroups(const RouterParams& params, std::vector<float>& values) {
  const uint32_t size = params.num_experts / params.num_groups;
  std::vector<float> group_values;
  for (uint32_t g = 0; g < params.num_groups; ++g) {
    std::vector<float> members(values.begin() + g * size, values.begin() + (g + 1) * size);
    std::sort(members.begin(), members.end(), std::greater<>());
    group_values.push_back(size == 1 ? members[0] : members[0] + members[1]);
  }
  const std::vector<uint32_t> order = SortedByValue(group_values);
  for (uint32_t i = params.top_groups; i < params.num_groups; ++i) {
    std::fill_n(values.begin() + order[i] * size, size, -std::numeric_limits<float>::infinity());
  }
}

std::vector<float> Scores(const float* logits, const RouterParams& params) {
  std::vector<double> values(logits, logits + params.num_experts);
  for (double& value : values) value = LogitOf(static_cast<float>(value));
  const double max = *std::max_element(values.begin(), values.end());
  double sum = 0;
  for (const double value : values) sum += std::exp(value - max);
  std::vector<float> scores(params.num_experts);
  for (uint32_t e = 0; e < params.num_experts; ++e) {
    const double score = params.score == RouterScore::kSigmoid ? 1 / (1 + std::exp(-values[e]))
                                                               : std::exp(values[e] - max) / sum;
    // Without any logit: NaN, as the sum is.
    scores[e] = static_cast<float>(std::isnan(sum) ? sum : score);
  }
  return scores;
}

// No bias, no groups: compares logits, so that the choice does not depend on exp.
void RoutePlainRow(const float* logits, const RouterParams& params, uint32_t* ids, float* weights) {
  std::vector<float> values(logits, logits + params.num_experts);
  for (float& value : values) value = LogitOf(value);
  const std::vector<uint32_t> order = SortedByValue(values);
  const double max = values[order[0]];
  double sum = 0;
  const uint32_t summed = params.renormalise ? params.top_k : params.num_experts;
  for (uint32_t j = 0; j < summed; ++j) sum += std::exp(values[order[j]] - max);
  for (uint32_t j = 0; j < params.top_k; ++j) {
    ids[j] = order[j];
    weights[j] = static_cast<float>(std::exp(values[order[j]] - max) / sum);
  }
}

void RouteRow(const float* logits, const RouterParams& params, uint32_t* ids, float* weights) {
  const std::vector<float> scores = Scores(logits, params);
  std::vector<float> values = ChoiceValues(
      ChoosesByLogit(params) ? std::vector<float>(logits, logits + params.num_experts) : scores,
      params);
  if (params.num_groups > 1) LimitToGroups(params, values);
  const std::vector<uint32_t> order = SortedByValue(values);
  double sum = 0;
  for (uint32_t j = 0; j < params.top_k; ++j) sum += scores[order[j]];
  const double factor =
      params.renormalise ? params.scale / std::max(sum, 1e-20) : double{params.scale};
  for (uint32_t j = 0; j < params.top_k; ++j) {
    ids[j] = order[j];
    weights[j] = static_cast<float>(scores[order[j]] * factor);
  }
}

}  // namespace

void Route(const RouterParams& params) {
  const auto route = IsPlainSoftmax(params) ? RoutePlainRow : RouteRow;
  for (uint32_t t = 0; t < params.num_rows; ++t) {
    route(params.logits + static_cast<size_t>(t) * params.num_experts, params,
          params.expert_ids + static_cast<size_t>(t) * params.top_k,
          params.expert_weights + static_cast<size_t>(t) * params.top_k);
  }
}

}  // namespace essor::kernels::reference
