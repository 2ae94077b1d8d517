#include "kernels/routing.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "common/check.h"
#include "kernels/cpu/cpu_stream.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/row_kernels.h"
#include "kernels/reference/routing.h"

namespace essor::kernels {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
constexpr double kSumMin = 1e-20;

// exp(x) to within 2 units in the last place of a double for |x| < 700. Not std::exp: that takes
// other instructions, and rounds differently, from one processor to the next.
double PortableExp(double x) {
  if (!(x > -700)) return x != x ? x : 0;
  x = std::min(x, 700.0);
  constexpr double kLog2E = 0x1.71547652b82fep+0;
  constexpr double kLn2High = 0x1.62e42feep-1;  // low bits zero: k * kLn2High is exact
  constexpr double kLn2Low = 0x1.a39ef35793c76p-33;
  const double k = std::nearbyint(x * kLog2E);
  const double r = x - k * kLn2High - k * kLn2Low;
  // Taylor series: |r| <= ln 2 / 2, so the term after the last one is below 2^-52.
  constexpr int kTerms = 13;
  double sum = 1;
  for (int i = kTerms; i >= 1; --i) sum = 1 + sum * r / i;
  return std::ldexp(sum, static_cast<int>(k));
}

float LogitOf(float logit) { return logit == logit ? logit : kMinusInfinity; }

void ScoreRow(const float* logits, const RouterParams& params, float* scores) {
  const uint32_t num_experts = params.num_experts;
  float max = kMinusInfinity;
  for (uint32_t e = 0; e < num_experts; ++e) max = std::max(max, LogitOf(logits[e]));
  if (max == kMinusInfinity) {
    std::fill_n(scores, num_experts, std::numeric_limits<float>::quiet_NaN());
    return;
  }
  if (params.score == RouterScore::kSigmoid) {
    for (uint32_t e = 0; e < num_experts; ++e) {
      scores[e] = static_cast<float>(1 / (1 + PortableExp(-double{LogitOf(logits[e])})));
    }
    return;
  }
  double sum = 0;
  for (uint32_t e = 0; e < num_experts; ++e) sum += PortableExp(double{LogitOf(logits[e])} - max);
  for (uint32_t e = 0; e < num_experts; ++e) {
    scores[e] = static_cast<float>(PortableExp(double{LogitOf(logits[e])} - max) / sum);
  }
}

// The best few values seen, sorted; earlier ones win ties. Takes any value while it is not full, so
// that its ids are distinct even where all values are -infinity.
class BestFew {
 public:
  BestFew(uint32_t capacity, float* values, uint32_t* ids)
      : capacity_(capacity), values_(values), ids_(ids) {}

  void Insert(float value, uint32_t id) {
    if (count_ == capacity_ && !(value > values_[count_ - 1])) return;
    uint32_t place = count_ < capacity_ ? count_++ : count_ - 1;
    for (; place > 0 && value > values_[place - 1]; --place) {
      values_[place] = values_[place - 1];
      ids_[place] = ids_[place - 1];
    }
    values_[place] = value;
    ids_[place] = id;
  }

 private:
  const uint32_t capacity_;
  float* const values_;
  uint32_t* const ids_;
  uint32_t count_ = 0;
};

// Experts outside the best groups get -infinity.
void KeepBestGroups(const RouterParams& params, float* choice) {
  const uint32_t size = params.num_experts / params.num_groups;
  float values[kRoutedExpertsMax];
  uint32_t groups[kRoutedExpertsMax];
  BestFew best_groups(params.top_groups, values, groups);
  for (uint32_t g = 0; g < params.num_groups; ++g) {
    float best[2] = {0, 0};  // the second stays 0 in groups of one
    uint32_t unused[2];
    BestFew best_two(2, best, unused);
    for (uint32_t e = g * size; e < (g + 1) * size; ++e) best_two.Insert(choice[e], e);
    best_groups.Insert(best[0] + best[1], g);
  }
  bool kept[kRoutedExpertsMax] = {};
  for (uint32_t i = 0; i < params.top_groups; ++i) kept[groups[i]] = true;
  for (uint32_t g = 0; g < params.num_groups; ++g) {
    if (!kept[g]) std::fill_n(choice + g * size, size, kMinusInfinity);
  }
}

void RouteRow(const RouterParams& params, uint64_t row) {
  float scores[kRoutedExpertsMax];
  float choice[kRoutedExpertsMax];
  const float* const logits = params.logits + row * params.num_experts;
  ScoreRow(logits, params, scores);
  for (uint32_t e = 0; e < params.num_experts; ++e) {
    const float score = ChoosesByLogit(params) ? logits[e] : scores[e];
    const float value = params.bias == nullptr ? score : score + params.bias[e];
    choice[e] = value == value ? value : kMinusInfinity;
  }
  if (params.num_groups > 1) KeepBestGroups(params, choice);
  uint32_t* const ids = params.expert_ids + row * params.top_k;
  float* const weights = params.expert_weights + row * params.top_k;
  BestFew best(params.top_k, weights, ids);
  for (uint32_t e = 0; e < params.num_experts; ++e) best.Insert(choice[e], e);
  double sum = 0;
  for (uint32_t j = 0; j < params.top_k; ++j) sum += scores[ids[j]];
  const double factor =
      params.renormalise ? params.scale / std::max(sum, kSumMin) : double{params.scale};
  for (uint32_t j = 0; j < params.top_k; ++j) {
    weights[j] = static_cast<float>(scores[ids[j]] * factor);
  }
}

}  // namespace

void Route(const RouterParams& params, Stream& stream) {
  ESSOR_CHECK(params.top_k >= 1 && params.top_k <= params.num_experts);
  ESSOR_CHECK(params.num_experts % params.num_groups == 0 && params.top_groups >= 1 &&
              params.top_groups <= params.num_groups);
  CpuStream& cpu = AsCpuStream(stream);
  if (cpu.isa() == CpuIsa::kReference) return reference::Route(params);
  if (!IsPlainSoftmax(params)) {
    ESSOR_CHECK(params.num_experts <= kRoutedExpertsMax);
    // An expert's score takes about 15 ns.
    constexpr uint64_t kScoresForFork = 512;
    return ParallelRange(cpu.pool(), params.num_rows, kScoresForFork / params.num_experts + 1,
                         [&](uint64_t begin, uint64_t end) {
                           for (uint64_t row = begin; row < end; ++row) RouteRow(params, row);
                         });
  }
  const auto route = RowKernelsFor(cpu.isa()).route;
  // A row of 128 experts takes about 0.2 us.
  constexpr uint64_t kLogitsForFork = 8 * 1024;
  ParallelRange(cpu.pool(), params.num_rows, kLogitsForFork / (params.num_experts + 1) + 2,
                [&](uint64_t begin, uint64_t end) { route(params, begin, end); });
}

}  // namespace essor::kernels
