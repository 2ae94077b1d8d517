// Index scores of a row (kernels/index_selection.h), tile by tile. For the ISA this is compiled
// for; see simd_inl.h. Lanes are positions: a score is a chain over heads of weight * max(0, q .
// key), each product a chain over dims, whichever positions are computed together.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/attention_loops_inl.h"
#include "kernels/cpu/attention_tile_inl.h"
#include "kernels/cpu/simd_inl.h"

namespace essor::kernels {
namespace {  // NOLINT(google-build-namespaces): see simd_inl.h

// Adds heads [first, first + Heads) to the sums of the positions of `range`.
template <uint32_t Heads>
void AddHeadScores(const IndexTask& task, uint32_t dim, const BufferedTile<false>& tile,
                   PositionRange range, uint32_t first, float* sums) {
  alignas(64) float products[Heads][kKvTile];
  ScoreTile<Heads>(task.queries + size_t{first} * dim, dim, tile, range, products);
  for (uint32_t p = 0; p < range.end; p += kLanes) {
    F32 sum = Load(sums + p);
    for (uint32_t r = 0; r < Heads; ++r) {
      sum = Fma(Set1(task.weights[first + r]), Max(F32{}, Load(products[r] + p)), sum);
    }
    Store(sums + p, sum);
  }
}

template <uint32_t Heads>
ESSOR_INLINE void AddHeadScoresOf(const IndexTask& task, uint32_t dim,
                                  const BufferedTile<false>& tile, PositionRange range,
                                  uint32_t first, uint32_t count, float* sums) {
  if constexpr (Heads > 0) {
    if (count == Heads) return AddHeadScores<Heads>(task, dim, tile, range, first, sums);
    AddHeadScoresOf<Heads - 1>(task, dim, tile, range, first, count, sums);
  }
}

template <typename T>
void IndexScoresOf(const AttentionCall& call, const IndexTask& task, float* keys) {
  const AttentionTask where = {task.sequence, 0, 0, 0, 0, 0};
  const BufferedTile<false> buffered = {keys, nullptr, 0, nullptr};
  CachedTile<T> tile;
  for (uint32_t begin = task.begin; begin < task.end; begin += kKvTile) {
    const PositionRange range = {0, Min(task.end - begin, kKvTile)};
    LocateTile(call, where, begin, range, tile);
    LoadLatentTile(tile, call, keys, nullptr);
    alignas(64) float sums[kKvTile] = {};
    for (uint32_t head = 0; head < task.num_heads; head += kBlockQueries) {
      AddHeadScoresOf<kBlockQueries>(task, call.key_dim, buffered, range, head,
                                     Min(task.num_heads - head, kBlockQueries), sums);
    }
    __builtin_memcpy(task.scores + (begin - task.begin), sums, range.end * sizeof(float));
  }
}

void IndexScores(const AttentionCall& call, const IndexTask& task, float* scratch) {
  if (call.type == KvType::kFloat32) {
    IndexScoresOf<float>(call, task, scratch);
  } else {
    IndexScoresOf<uint16_t>(call, task, scratch);
  }
}

}  // namespace
}  // namespace essor::kernels
