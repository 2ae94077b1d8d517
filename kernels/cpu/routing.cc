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

void ScoreRow(const float* logits, const RouterParams& params, float* scores) {
  const uint32_t num_experts = params.num_experts;
  if (params.score == RouterScore::kSigmoid) {
    for (uint32_t e = 0; e < num_experts; ++e) {
      scores[e] = static_cast<float>(1 / (1 + PortableExp(-double{logits[e]})));
    }
    return;
  }
  float max = kMinusInfinity;
  for (uint32_t e = 0; e < num_experts; ++e) max = logits[e] > max ? logits[e] : max;
  double sum = 0;
  for (uint32_t e = 0; e < num_experts; ++e) {
    if (logits[e] == logits[e]) sum += PortableExp(double{logits[e]} - max);
  }
  for (uint32_t e = 0; e < num_experts; ++e) {
    scores[e] = static_cast<float>(PortableExp(double{logits[e]} - max) / sum);
  }
}

// Puts `value` in its place among the `count` best, which are sorted, if it belongs there. Earlier
// ones win ties.
void Insert(float value, uint32_t id, uint32_t count, float* best, uint32_t* ids) {
  if (!(value > best[count - 1])) return;
  uint32_t place = count - 1;
  for (; place > 0 && value > best[place - 1]; --place) {
    best[place] = best[place - 1];
    ids[place] = ids[place - 1];
  }
  best[place] = value;
  ids[place] = id;
}

// Experts outside the best groups get -infinity.
void KeepBestGroups(const RouterParams& params, float* choice) {
  const uint32_t size = params.num_experts / params.num_groups;
  float values[kRoutedExpertsMax];
  for (uint32_t g = 0; g < params.num_groups; ++g) {
    float best[2] = {kMinusInfinity, kMinusInfinity};
    uint32_t unused[2] = {};
    for (uint32_t e = g * size; e < (g + 1) * size; ++e) Insert(choice[e], e, 2, best, unused);
    values[g] = size == 1 ? best[0] : best[0] + best[1];
  }
  float best[kRoutedExpertsMax];
  uint32_t groups[kRoutedExpertsMax];
  for (uint32_t i = 0; i < params.top_groups; ++i) {
    best[i] = kMinusInfinity;
    groups[i] = i;
  }
  for (uint32_t g = 0; g < params.num_groups; ++g) {
    Insert(values[g], g, params.top_groups, best, groups);
  }
  for (uint32_t g = 0; g < params.num_groups; ++g) {
    const bool kept =
        std::find(groups, groups + params.top_groups, g) != groups + params.top_groups;
    if (!kept) std::fill_n(choice + g * size, size, kMinusInfinity);
  }
}

void RouteRow(const RouterParams& params, uint64_t row) {
  float scores[kRoutedExpertsMax];
  float choice[kRoutedExpertsMax];
  ScoreRow(params.logits + row * params.num_experts, params, scores);
  for (uint32_t e = 0; e < params.num_experts; ++e) {
    const float value = params.bias == nullptr ? scores[e] : scores[e] + params.bias[e];
    choice[e] = value == value ? value : kMinusInfinity;
  }
  if (params.num_groups > 1) KeepBestGroups(params, choice);
  uint32_t* const ids = params.expert_ids + row * params.top_k;
  float* const weights = params.expert_weights + row * params.top_k;
  for (uint32_t j = 0; j < params.top_k; ++j) {
    weights[j] = kMinusInfinity;
    ids[j] = j;
  }
  for (uint32_t e = 0; e < params.num_experts; ++e) {
    Insert(choice[e], e, params.top_k, weights, ids);
  }
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
