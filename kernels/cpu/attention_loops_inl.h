// The three loops of attention over one tile: scores, weights, weighted sums. For the ISA this is
// compiled for; see simd_inl.h.
//
// Keys are taken as columns of kLanes positions for each d, so that lanes are positions and a score
// is one chain of multiply-adds over d; values as rows, so that lanes are dims and a result is one
// chain over positions. How many queries go through a tile together then changes no chain, only
// how often a loaded value is used.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/attention_tile_inl.h"
#include "kernels/cpu/simd_inl.h"
#include "kernels/cpu/tile_factors_inl.h"

namespace essor::kernels {
namespace {  // NOLINT(google-build-namespaces): see simd_inl.h

// Queries and vectors that one pass over a tile keeps in registers: of 32, 16 and 16.
#if defined(__AVX512F__)
constexpr uint32_t kBlockQueries = 6;
constexpr uint32_t kBlockVectors = 4;
#elif defined(__AVX2__)
constexpr uint32_t kBlockQueries = 6;
constexpr uint32_t kBlockVectors = 2;
#else
constexpr uint32_t kBlockQueries = 4;
constexpr uint32_t kBlockVectors = 2;
#endif
static_assert(kKvTile % (kBlockVectors * kLanes) == 0);

constexpr float kEmptyMax = -__builtin_inff();

// scores[r][position] of `Queries` queries for the positions of `range`, in whole vectors: others
// hold anything.
template <uint32_t Queries, typename Tile>
ESSOR_INLINE void ScoreTile(const float* queries, uint32_t dim, const Tile& tile,
                            PositionRange range, float (*scores)[kKvTile]) {
  constexpr uint32_t kStep = kBlockVectors * kLanes;
  for (uint32_t p = range.begin / kStep * kStep; p < range.end; p += kStep) {
    F32 sums[Queries][kBlockVectors] = {};
    for (uint32_t d = 0; d < dim; ++d) {
      F32 key[kBlockVectors];
#pragma GCC unroll 4
      for (uint32_t j = 0; j < kBlockVectors; ++j) {
        key[j] = tile.Keys(p + j * kLanes, d);
      }
#pragma GCC unroll 6
      for (uint32_t r = 0; r < Queries; ++r) {
        const F32 q = Set1(queries[r * dim + d]);
#pragma GCC unroll 4
        for (uint32_t j = 0; j < kBlockVectors; ++j) sums[r][j] = Fma(q, key[j], sums[r][j]);
      }
    }
#pragma GCC unroll 6
    for (uint32_t r = 0; r < Queries; ++r) {
#pragma GCC unroll 4
      for (uint32_t j = 0; j < kBlockVectors; ++j) {
        F32 score = sums[r][j];
        if constexpr (Tile::kFactors) score *= Load(tile.factors->keys + p + j * kLanes);
        Store(scores[r] + p + j * kLanes, score);
      }
    }
  }
}

ESSOR_INLINE float Exp2(float x) { return Exp2(Set1(x))[0]; }

ESSOR_INLINE void Scale(float* values, float factor, uint32_t count) {
  const F32 f = Set1(factor);
  for (uint32_t i = 0; i < count; i += kLanes) Store(values + i, Load(values + i) * f);
}

// Turns the scores of one query in `range` (not empty) into weights 2^(score - max), zero in the
// other lanes of the vectors touched, and updates its max, sums and results to the new max.
ESSOR_INLINE void WeighTile(float* scores, PositionRange range, float& max, float* lane_sums,
                            float* results, uint32_t padded) {
  const uint32_t first = range.begin / kLanes * kLanes;
  const I32 begin = Set1(static_cast<int32_t>(range.begin));
  const I32 end = Set1(static_cast<int32_t>(range.end));
  F32 largest = Set1(kEmptyMax);
  for (uint32_t p = first; p < range.end; p += kLanes) {
    F32 score = Load(scores + p);
    if (p < range.begin || p + kLanes > range.end) {
      const I32 position = Iota() + static_cast<int32_t>(p);
      score = Select((position >= begin) & (position < end), score, Set1(kEmptyMax));
      Store(scores + p, score);
    }
    largest = Max(largest, score);
  }
  const float tile_max = ReduceMax(largest);
  F32 sums = Load(lane_sums);
  if (tile_max > max) {
    const float correction = Exp2(max - tile_max);
    max = tile_max;
    sums = sums * correction;
    Scale(results, correction, padded);
  }
  const F32 reference = Set1(max);
  for (uint32_t p = first; p < range.end; p += kLanes) {
    const F32 weight = Exp2(Load(scores + p) - reference);
    Store(scores + p, weight);
    sums += weight;
  }
  Store(lane_sums, sums);
}

// The weights of one query in `range` times the factors of the values: others hold anything.
ESSOR_INLINE void ApplyValueFactors(float* weights, PositionRange range, const float* factors) {
  for (uint32_t p = range.begin / kLanes * kLanes; p < range.end; p += kLanes) {
    Store(weights + p, Load(weights + p) * Load(factors + p));
  }
}

// results[r] += sum over positions of weights[r][position] * value of position.
template <uint32_t Queries, typename Tile>
ESSOR_INLINE void AddValues(const float (*weights)[kKvTile], const Tile& tile, PositionRange range,
                            float* results, uint32_t padded) {
  if (range.begin >= range.end) return;
  uint32_t d = 0;
  for (; d + kBlockVectors * kLanes <= padded; d += kBlockVectors * kLanes) {
    F32 sums[Queries][kBlockVectors];
#pragma GCC unroll 6
    for (uint32_t r = 0; r < Queries; ++r) {
#pragma GCC unroll 4
      for (uint32_t j = 0; j < kBlockVectors; ++j) {
        sums[r][j] = Load(results + r * padded + d + j * kLanes);
      }
    }
    for (uint32_t p = range.begin; p < range.end; ++p) {
      F32 value[kBlockVectors];
#pragma GCC unroll 4
      for (uint32_t j = 0; j < kBlockVectors; ++j) {
        value[j] = tile.Values(p, d + j * kLanes);
      }
#pragma GCC unroll 6
      for (uint32_t r = 0; r < Queries; ++r) {
        const F32 weight = Set1(weights[r][p]);
#pragma GCC unroll 4
        for (uint32_t j = 0; j < kBlockVectors; ++j) {
          sums[r][j] = Fma(weight, value[j], sums[r][j]);
        }
      }
    }
#pragma GCC unroll 6
    for (uint32_t r = 0; r < Queries; ++r) {
#pragma GCC unroll 4
      for (uint32_t j = 0; j < kBlockVectors; ++j) {
        Store(results + r * padded + d + j * kLanes, sums[r][j]);
      }
    }
  }
  for (; d < padded; d += kLanes) {  // dims that fill no whole block
    F32 sums[Queries];
#pragma GCC unroll 6
    for (uint32_t r = 0; r < Queries; ++r) sums[r] = Load(results + r * padded + d);
    for (uint32_t p = range.begin; p < range.end; ++p) {
      const F32 value = tile.Values(p, d);
#pragma GCC unroll 6
      for (uint32_t r = 0; r < Queries; ++r) {
        sums[r] = Fma(Set1(weights[r][p]), value, sums[r]);
      }
    }
#pragma GCC unroll 6
    for (uint32_t r = 0; r < Queries; ++r) Store(results + r * padded + d, sums[r]);
  }
}

}  // namespace
}  // namespace essor::kernels
