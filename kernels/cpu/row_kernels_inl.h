// The functions of RowKernels (kernels/cpu/row_kernels.h) for the ISA this is compiled for. To be
// included once, by one row_kernels_<isa>.cc each. Sums are taken in vectors of kLanes, several in
// turn, and then across the lanes, in an order that depends on the width of the row only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/row_kernels.h"
#include "kernels/cpu/simd_inl.h"
#include "kernels/gumbel.h"

namespace essor::kernels {
namespace {  // NOLINT(google-build-namespaces): see simd_inl.h

constexpr float kMinusInfinity = -__builtin_inff();

// sum x[i]^2, and where `residual` is given x is first added to it and its squares are taken.
ESSOR_INLINE float AddAndSumSquares(const float* x, float* residual, uint32_t width) {
  constexpr uint32_t kChains = 4;
  F32 sums[kChains] = {};
  const auto take = [&](uint32_t chain, F32 v) { sums[chain] = Fma(v, v, sums[chain]); };
  uint32_t i = 0;
  for (; i + kChains * kLanes <= width; i += kChains * kLanes) {
#pragma GCC unroll 4
    for (uint32_t chain = 0; chain < kChains; ++chain) {
      const uint32_t at = i + chain * kLanes;
      F32 v = Load(x + at);
      if (residual != nullptr) {
        v = Load(residual + at) + v;
        Store(residual + at, v);
      }
      take(chain, v);
    }
  }
  for (; i < width; i += kLanes) {
    const uint32_t n = width - i < kLanes ? width - i : kLanes;
    F32 v = LoadPartial(x + i, n);
    if (residual != nullptr) {
      v = LoadPartial(residual + i, n) + v;
      StorePartial(residual + i, v, n);
    }
    take(0, v);
  }
  return ReduceAdd((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// y = x * factor * weight. Null weights are all 1.
ESSOR_INLINE void ScaleRow(const float* x, float factor, const float* weight, uint32_t width,
                           float* y) {
  const F32 f = Set1(factor);
  for (uint32_t i = 0; i < width; i += kLanes) {
    const uint32_t n = width - i;
    const F32 w = weight == nullptr ? Set1(1.0f) : LoadPartial(weight + i, n);
    StorePartial(y + i, LoadPartial(x + i, n) * f * w, n);
  }
}

ESSOR_INLINE float InverseRms(float squares, uint32_t width, float eps) {
  return 1.0f / __builtin_sqrtf(squares / static_cast<float>(width) + eps);
}

void RmsNormRows(const RmsNormParams& params, uint64_t begin, uint64_t end) {
  for (uint64_t t = begin; t < end; ++t) {
    const float* x = params.x + t * params.width;
    float* residual = params.residual == nullptr ? nullptr : params.residual + t * params.width;
    const float squares = AddAndSumSquares(x, residual, params.width);
    ScaleRow(residual == nullptr ? x : residual, InverseRms(squares, params.width, params.eps),
             params.weight, params.width, params.y + t * params.width);
  }
}

ESSOR_INLINE float SumRow(const float* x, uint32_t width) {
  F32 sum = {};
  for (uint32_t i = 0; i < width; i += kLanes) sum += LoadPartial(x + i, width - i);
  return ReduceAdd(sum);
}

// sum (x[i] - mean)^2
ESSOR_INLINE float SumSquaredDeviations(const float* x, float mean, uint32_t width) {
  F32 sum = {};
  uint32_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    const F32 deviation = Load(x + i) - Set1(mean);
    sum = Fma(deviation, deviation, sum);
  }
  if (i < width) {
    const I32 inside = Iota() < Set1(static_cast<int32_t>(width - i));
    const F32 deviation = Select(inside, LoadPartial(x + i, width - i) - Set1(mean), F32{});
    sum = Fma(deviation, deviation, sum);
  }
  return ReduceAdd(sum);
}

void LayerNormRows(const LayerNormParams& params, uint64_t begin, uint64_t end) {
  const uint32_t width = params.width;
  for (uint64_t t = begin; t < end; ++t) {
    const float* x = params.x + t * width;
    float* y = params.y + t * width;
    const float mean = SumRow(x, width) / static_cast<float>(width);
    const F32 factor = Set1(InverseRms(SumSquaredDeviations(x, mean, width), width, params.eps));
    for (uint32_t i = 0; i < width; i += kLanes) {
      const uint32_t n = width - i;
      const F32 normed = (LoadPartial(x + i, n) - Set1(mean)) * factor;
      StorePartial(y + i,
                   Fma(normed, LoadPartial(params.weight + i, n), LoadPartial(params.bias + i, n)),
                   n);
    }
  }
}

void RowSquaresRows(const RowSquaresParams& params, uint64_t begin, uint64_t end) {
  for (uint64_t t = begin; t < end; ++t) {
    params.squares[t * params.squares_stride] =
        AddAndSumSquares(params.x + t * params.x_stride, nullptr, params.width);
  }
}

void NormBySquaresRows(const NormBySquaresParams& params, uint64_t begin, uint64_t end) {
  for (uint64_t t = begin; t < end; ++t) {
    float* x = params.x + t * params.x_stride;
    const float squares = params.squares[t * params.squares_stride];
    ScaleRow(x, InverseRms(squares, params.total_width, params.eps), params.weight, params.width,
             x);
  }
}

// (a, b) rotated by the angle of (cos, sin).
ESSOR_INLINE F32 RotatedFirst(F32 a, F32 b, F32 cos, F32 sin) { return Fma(a, cos, -(b * sin)); }
ESSOR_INLINE F32 RotatedSecond(F32 a, F32 b, F32 cos, F32 sin) { return Fma(b, cos, a * sin); }

ESSOR_INLINE void RotateHalves(float* head, const float* cos, const float* sin, uint32_t half) {
  for (uint32_t i = 0; i < half; i += kLanes) {
    const uint32_t n = half - i < kLanes ? half - i : kLanes;
    const F32 a = LoadPartial(head + i, n);
    const F32 b = LoadPartial(head + half + i, n);
    const F32 c = LoadPartial(cos + i, n);
    const F32 s = LoadPartial(sin + i, n);
    StorePartial(head + i, RotatedFirst(a, b, c, s), n);
    StorePartial(head + half + i, RotatedSecond(a, b, c, s), n);
  }
}

ESSOR_INLINE void RotatePairs(float* head, const float* cos, const float* sin, uint32_t half) {
  for (uint32_t i = 0; i < half; i += kLanes) {
    const uint32_t n = half - i < kLanes ? half - i : kLanes;
    // 2 n floats, in up to two vectors.
    const uint32_t low = 2 * n < kLanes ? 2 * n : kLanes;
    float* pairs = head + 2 * i;
    const F32 v0 = LoadPartial(pairs, low);
    const F32 v1 = LoadPartial(pairs + low, 2 * n - low);
    const F32 a = EvenLanes(v0, v1);
    const F32 b = OddLanes(v0, v1);
    const F32 c = LoadPartial(cos + i, n);
    const F32 s = LoadPartial(sin + i, n);
    const F32 first = RotatedFirst(a, b, c, s);
    const F32 second = RotatedSecond(a, b, c, s);
    StorePartial(pairs, InterleaveLow(first, second), low);
    StorePartial(pairs + low, InterleaveHigh(first, second), 2 * n - low);
  }
}

// head / its root mean square * norm, in place.
ESSOR_INLINE void NormHead(const QkNormRopeParams& params, const float* norm, float* head) {
  const float squares = AddAndSumSquares(head, nullptr, params.head_dim);
  const float factor = InverseRms(squares, params.head_dim, params.norm_eps);
  ScaleRow(head, factor, norm, params.head_dim, head);
}

ESSOR_INLINE void NormAndRotateHeads(const QkNormRopeParams& params, float* heads,
                                     uint32_t num_heads, uint32_t head_stride, const float* norm,
                                     uint32_t position) {
  const uint32_t half = params.rotary_dim / 2;
  const size_t table_row = static_cast<size_t>(position) * half;
  for (uint32_t h = 0; h < num_heads; ++h) {
    float* head = heads + static_cast<size_t>(h) * head_stride;
    if (norm != nullptr) NormHead(params, norm, head);
    if (half != 0 && params.interleaved) {
      RotatePairs(head, params.cos + table_row, params.sin + table_row, half);
    } else if (half != 0) {
      RotateHalves(head, params.cos + table_row, params.sin + table_row, half);
    }
    if (params.unit_norm_after) NormHead(params, nullptr, head);
  }
}

// The queries of one row; there may be none, and then no pointer to them either.
ESSOR_INLINE void NormAndRotateQueries(const QkNormRopeParams& params, uint64_t t) {
  if (params.num_heads == 0) return;
  float* q = params.q + t * params.q_stride;
  const uint32_t stride = params.q_head_stride == 0 ? params.head_dim : params.q_head_stride;
  NormAndRotateHeads(params, q, params.num_heads, stride, params.q_norm, params.positions[t]);
  if (params.temperature.scale == 0) return;
  const float factor = params.temperature.FactorAt(params.positions[t]);
  for (uint32_t h = 0; h < params.num_heads; ++h) {
    float* head = q + static_cast<size_t>(h) * stride;
    ScaleRow(head, factor, nullptr, params.head_dim, head);
  }
}

void QkNormRopeRows(const QkNormRopeParams& params, uint64_t begin, uint64_t end) {
  for (uint64_t t = begin; t < end; ++t) {
    NormAndRotateQueries(params, t);
    if (params.num_kv_heads == 0) continue;
    NormAndRotateHeads(params, params.k + t * params.k_stride, params.num_kv_heads, params.head_dim,
                       params.k_norm, params.positions[t]);
  }
}

void AddRange(float* y, const float* x, uint64_t begin, uint64_t end) {
  uint64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) Store(y + i, Load(y + i) + Load(x + i));
  for (; i < end; ++i) y[i] += x[i];
}

// Calls body(i, n) for vectors of n lanes at i that together are [begin, end).
template <typename Body>
ESSOR_INLINE void ForVectors(uint64_t begin, uint64_t end, const Body& body) {
  uint64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) body(i, kLanes);
  if (i < end) body(i, static_cast<uint32_t>(end - i));
}

void SiluRange(float* x, uint64_t begin, uint64_t end) {
  ForVectors(begin, end, [&](uint64_t i, uint32_t n) {
    const F32 v = LoadPartial(x + i, n);
    StorePartial(x + i, v * Sigmoid(v), n);
  });
}

void GateHeadRows(const GateHeadsParams& params, uint64_t begin, uint64_t end) {
  for (uint64_t t = begin; t < end; ++t) {
    for (uint32_t h = 0; h < params.num_heads; ++h) {
      float* y = params.y + (t * params.num_heads + h) * params.head_dim;
      const float* gate =
          params.gate + t * params.gate_stride + size_t{h} * params.gate_head_stride;
      const bool silu = params.kind == Gate::kSilu;
      ForVectors(0, params.head_dim, [&](uint64_t i, uint32_t n) {
        const F32 x = LoadPartial(gate + i, n);
        const F32 factor = silu ? x * Sigmoid(x) : Sigmoid(x);
        StorePartial(y + i, LoadPartial(y + i, n) * factor, n);
      });
    }
  }
}

void AddGatedRows(const AddGatedParams& params, uint64_t begin, uint64_t end) {
  for (uint64_t t = begin; t < end; ++t) {
    const F32 gate = Sigmoid(Set1(params.gates[t]));
    float* y = params.y + t * params.width;
    const float* x = params.x + t * params.width;
    ForVectors(0, params.width, [&](uint64_t i, uint32_t n) {
      StorePartial(y + i, Fma(LoadPartial(x + i, n), gate, LoadPartial(y + i, n)), n);
    });
  }
}

void WeightedSumRange(const WeightedSumParams& params, uint64_t begin, uint64_t end) {
  const F32 alpha = Set1(params.alpha);
  const F32 beta = Set1(params.beta);
  ForVectors(begin, end, [&](uint64_t i, uint32_t n) {
    const F32 sum = Fma(LoadPartial(params.x + i, n), alpha, LoadPartial(params.y + i, n) * beta);
    StorePartial(params.z + i, sum, n);
  });
}

// NaN as -infinity, in full vectors and in the last lanes, which are -infinity beyond n.
ESSOR_INLINE F32 LoadLogits(const float* logits, uint32_t n) {
  if (n >= kLanes) {
    const F32 v = Load(logits);
    return Select(v == v, v, Set1(kMinusInfinity));
  }
  const F32 v = LoadPartial(logits, n);
  return Select((v == v) & (Iota() < Set1(static_cast<int32_t>(n))), v, Set1(kMinusInfinity));
}

// Inserts into the list of the `size` best so far, best first; of equal ones the earlier stays
// ahead. The last one falls out.
ESSOR_INLINE void InsertExpert(float score, uint32_t id, uint32_t size, float* scores,
                               uint32_t* ids) {
  uint32_t at = size - 1;
  for (; at > 0 && scores[at - 1] < score; --at) {
    scores[at] = scores[at - 1];
    ids[at] = ids[at - 1];
  }
  scores[at] = score;
  ids[at] = id;
}

// The top_k largest logits into scores and ids.
ESSOR_INLINE void ChooseExperts(const float* logits, const RouterParams& params, float* scores,
                                uint32_t* ids) {
  const uint32_t top_k = params.top_k;
  for (uint32_t e = 0; e < top_k; ++e) {
    const float logit = logits[e] == logits[e] ? logits[e] : kMinusInfinity;
    InsertExpert(logit, e, e + 1, scores, ids);
  }
  for (uint32_t e = top_k; e < params.num_experts; e += kLanes) {
    const uint32_t n = params.num_experts - e < kLanes ? params.num_experts - e : kLanes;
    const F32 v = LoadLogits(logits + e, n);
    // Candidates by the worst score kept now; it can only rise meanwhile.
    for (uint32_t bits = MaskBits(v > Set1(scores[top_k - 1])); bits != 0; bits &= bits - 1) {
      const uint32_t lane = static_cast<uint32_t>(__builtin_ctz(bits));
      const float score = logits[e + lane];
      if (score > scores[top_k - 1]) InsertExpert(score, e + lane, top_k, scores, ids);
    }
  }
}

ESSOR_INLINE float SumExp(const float* logits, uint32_t count, float max) {
  F32 sum = {};
  for (uint32_t i = 0; i < count; i += kLanes) {
    sum += Exp(LoadLogits(logits + i, count - i) - Set1(max));
  }
  return ReduceAdd(sum);
}

void RouteRows(const RouterParams& params, uint64_t begin, uint64_t end) {
  const uint32_t top_k = params.top_k;
  for (uint64_t t = begin; t < end; ++t) {
    const float* logits = params.logits + t * params.num_experts;
    float* weights = params.expert_weights + t * top_k;
    ChooseExperts(logits, params, weights, params.expert_ids + t * top_k);
    const float max = weights[0];
    const float sum =
        params.renormalise ? SumExp(weights, top_k, max) : SumExp(logits, params.num_experts, max);
    for (uint32_t j = 0; j < top_k; j += kLanes) {
      const uint32_t n = top_k - j < kLanes ? top_k - j : kLanes;
      StorePartial(weights + j, Exp(LoadPartial(weights + j, n) - Set1(max)) / Set1(sum), n);
    }
  }
}

// The best score of each lane so far and where it was seen; earlier ones win ties.
struct LaneBest {
  F32 scores = Set1(kMinusInfinity);
  I32 columns = {};

  ESSOR_INLINE void Take(F32 candidate, I32 candidate_columns) {
    const I32 better = candidate > scores;  // false for NaN
    scores = Select(better, candidate, scores);
    columns = Select(better, candidate_columns, columns);
  }
};

// The best of all lanes, ties to the lower column.
ESSOR_INLINE Candidate BestLane(const LaneBest* lanes, uint32_t count, uint32_t first_id,
                                uint32_t begin) {
  Candidate best = {kMinusInfinity, first_id + begin};
  for (uint32_t j = 0; j < count; ++j) {
    for (uint32_t i = 0; i < kLanes; ++i) {
      const float score = lanes[j].scores[i];
      const uint32_t id = first_id + static_cast<uint32_t>(lanes[j].columns[i]);
      if (score > best.score || (score == best.score && score > kMinusInfinity && id < best.id)) {
        best = {score, id};
      }
    }
  }
  return best;
}

Candidate GreedyBest(const float* logits, uint32_t first_id, uint32_t begin, uint32_t end) {
  constexpr uint32_t kChains = 4;
  LaneBest best[kChains];
  I32 columns = Iota() + Set1(static_cast<int32_t>(begin));
  uint32_t i = begin;
  for (; i + kChains * kLanes <= end; i += kChains * kLanes) {
#pragma GCC unroll 4
    for (uint32_t chain = 0; chain < kChains; ++chain) {
      best[chain].Take(Load(logits + i + chain * kLanes), columns);
      columns += static_cast<int32_t>(kLanes);
    }
  }
  for (; i < end; i += kLanes) {
    best[0].Take(LoadLogits(logits + i, end - i), columns);
    columns += static_cast<int32_t>(kLanes);
  }
  return BestLane(best, kChains, first_id, begin);
}

LogSumExpPart LogSumExpRow(const float* logits, uint32_t width) {
  F32 maxima = Set1(kMinusInfinity);
  for (uint32_t i = 0; i < width; i += kLanes) {
    maxima = Max(maxima, LoadLogits(logits + i, width - i));
  }
  const float max = ReduceMax(maxima);
  if (!(max > kMinusInfinity)) return {kMinusInfinity, 0};
  // Sums of thousands of terms: partial sums of 64 vectors keep the rounding error small.
  constexpr uint32_t kRun = 64 * kLanes;
  F32 total = {};
  for (uint32_t run = 0; run < width; run += kRun) {
    const uint32_t end = width - run < kRun ? width : run + kRun;
    F32 sum = {};
    for (uint32_t i = run; i < end; i += kLanes) {
      const uint32_t n = end - i < kLanes ? end - i : kLanes;
      const F32 v = n == kLanes ? Load(logits + i) : LoadLogits(logits + i, n);
      sum += Exp(v - Set1(max));
    }
    total += sum;
  }
  return {max, ReduceAdd(total)};
}

}  // namespace
}  // namespace essor::kernels
