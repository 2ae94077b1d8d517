// The functions of AttentionKernels (attention_kernels.h) for the ISA this is compiled for.
// A task with many queries first converts each tile to floats in a buffer, [D][kKvTile] and
// [kKvTile][PaddedDim(Dv)]; one with few uses it from the cache directly. Latents, which lie with
// their dims side by side, always go through the buffer.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/attention_loops_inl.h"
#include "kernels/cpu/attention_tile_inl.h"
#include "kernels/cpu/index_scores_inl.h"
#include "kernels/cpu/simd_inl.h"
#include "kernels/cpu/tile_factors_inl.h"

namespace essor::kernels {
namespace {  // NOLINT(google-build-namespaces): see simd_inl.h

// One thread's memory for a task.
struct TileBuffers {
  float* queries;           // [queries, D], times scale and log2(e)
  float* keys;              // [PaddedDim(D), kKvTile]
  float* values;            // [kKvTile, PaddedDim(Dv)]
  float* lane_sums;         // [queries, kLanes]: the partition's sums before adding the lanes
  SoftmaxStates partition;  // the partition in work; its `sum` is filled at its end
};

// `scratch` is AttentionScratchFloats() long.
ESSOR_INLINE TileBuffers BuffersAt(float* scratch, uint32_t queries, const AttentionCall& call) {
  const size_t padded_key = PaddedDim(call.key_dim);
  TileBuffers buffers;
  buffers.keys = scratch;
  buffers.values = buffers.keys + padded_key * kKvTile;
  buffers.lane_sums = buffers.values + size_t{PaddedDim(call.value_dim)} * kKvTile;
  buffers.queries = buffers.lane_sums + size_t{queries} * kMaxLanes;
  buffers.partition = SoftmaxStatesAt(buffers.queries + queries * padded_key, queries);
  return buffers;
}

// A task, its memory, and where its tile begins.
struct TileWork {
  const AttentionCall& call;
  const AttentionTask& task;
  const TileBuffers& buffers;
  uint32_t group;  // heads per KV head
  uint32_t tile_begin;
};

// Queries [first, first + Queries) of the task through the tile. Never uses a key or value that a
// query does not see: what lies there may be anything, NaN too.
template <uint32_t Queries, typename Tile>
void AttendBlock(const TileWork& work, const Tile& tile, uint32_t first) {
  const AttentionTask& task = work.task;
  const uint32_t dim = work.call.key_dim;
  const uint32_t padded = PaddedDim(work.call.value_dim);
  PositionRange ranges[Queries];
  PositionRange any = {kKvTile, 0};
  PositionRange all = {0, kKvTile};
  uint32_t row = task.row_begin + first / work.group;
  uint32_t head = first % work.group;
  for (uint32_t r = 0; r < Queries; ++r) {
    PositionRange visible = VisibleKeys(work.call, *task.sequence, row);
    visible = Intersect(visible, {work.tile_begin, work.tile_begin + kKvTile});
    if (visible.begin >= visible.end) visible = {work.tile_begin, work.tile_begin};
    ranges[r] = {visible.begin - work.tile_begin, visible.end - work.tile_begin};
    all = Intersect(all, ranges[r]);
    if (ranges[r].begin < ranges[r].end) {
      any = {Min(any.begin, ranges[r].begin), Max(any.end, ranges[r].end)};
    }
    if (++head == work.group) {
      head = 0;
      ++row;
    }
  }
  if (any.begin >= any.end) return;

  alignas(64) float scores[Queries][kKvTile];
  const TileBuffers& buffers = work.buffers;
  ScoreTile<Queries>(buffers.queries + size_t{first} * dim, dim, tile, any, scores);
  float* results = buffers.partition.results + size_t{first} * padded;
  for (uint32_t r = 0; r < Queries; ++r) {
    if (ranges[r].begin == ranges[r].end) continue;
    WeighTile(scores[r], ranges[r], buffers.partition.max[first + r],
              buffers.lane_sums + size_t{first + r} * kLanes, results + r * padded, padded);
    if constexpr (Tile::kFactors) ApplyValueFactors(scores[r], ranges[r], tile.factors->values);
  }
  // Positions that all see, between those that only some see, each query's own in order.
  if (all.begin >= all.end) all = {kKvTile, kKvTile};
  for (uint32_t r = 0; r < Queries; ++r) {
    AddValues<1>(scores + r, tile, Intersect(ranges[r], {0, all.begin}), results + r * padded,
                 padded);
  }
  AddValues<Queries>(scores, tile, all, results, padded);
  for (uint32_t r = 0; r < Queries; ++r) {
    AddValues<1>(scores + r, tile, Intersect(ranges[r], {all.end, kKvTile}), results + r * padded,
                 padded);
  }
}

template <uint32_t Queries, typename Tile>
ESSOR_INLINE void AttendBlockOf(const TileWork& work, const Tile& tile, uint32_t first,
                                uint32_t count) {
  if constexpr (Queries > 0) {
    if (count == Queries) return AttendBlock<Queries>(work, tile, first);
    AttendBlockOf<Queries - 1>(work, tile, first, count);
  }
}

template <typename Tile>
ESSOR_INLINE void AttendTile(const TileWork& work, const Tile& tile, uint32_t queries) {
  uint32_t first = 0;
  while (first < queries) {
    const uint32_t rest = queries - first;
    // The last two blocks are of equal size: a block of few uses what it loads badly.
    uint32_t count = Min(rest, kBlockQueries);
    if (rest > kBlockQueries && rest < 2 * kBlockQueries) count = (rest + 1) / 2;
    AttendBlockOf<kBlockQueries>(work, tile, first, count);
    first += count;
  }
}

template <typename T>
ESSOR_INLINE void AttendBuffered(const TileWork& work, const CachedTile<T>& tile,
                                 const TileFactors& factors, uint32_t queries) {
  float* const keys = work.buffers.keys;
  float* const values = work.buffers.values;
  const uint32_t padded = PaddedDim(work.call.value_dim);
  if (HoldsLatents(work.call)) {
    if constexpr (kHasFactor<T>) {
      LoadQuantisedLatentTile(tile, work.call, keys, values);
    } else {
      LoadLatentTile(tile, work.call, keys, values);
    }
    return AttendTile(work, BufferedTile<false>{keys, values, padded, nullptr}, queries);
  }
  LoadTile(tile, work.call, keys, values);
  AttendTile(work, BufferedTile<kHasFactor<T>>{keys, values, padded, &factors}, queries);
}

// Queries of a task that uses tiles from the cache. Of e4m3, which takes five instructions a
// vector, those that one load serves.
template <typename T>
constexpr uint32_t kDirectQueries = 2 * kBlockQueries;
template <>
constexpr uint32_t kDirectQueries<Float8E4M3> = kBlockQueries;

// The keys of `range` (positions, within one partition) into buffers.partition.
template <typename T>
ESSOR_INLINE void AttendRange(TileWork work, PositionRange range, uint32_t queries) {
  const AttentionCall& call = work.call;
  const bool direct = !HoldsLatents(call) && queries <= kDirectQueries<T> &&
                      call.block_tokens % kLanes == 0 && call.value_dim % kMaxLanes == 0;
  TileFactors factors = InitialFactors<T>();
  CachedTile<T> tiles[2];  // this one and the next
  uint32_t current = 0;
  const auto locate = [&](uint32_t begin, CachedTile<T>& tile) {
    const PositionRange positions = Intersect(range, {begin, begin + kKvTile});
    LocateTile(call, work.task, begin, {positions.begin - begin, positions.end - begin}, tile);
  };
  work.tile_begin = range.begin / kKvTile * kKvTile;
  locate(work.tile_begin, tiles[0]);
  while (true) {
    const uint32_t next = work.tile_begin + kKvTile;
    if (next < range.end) {
      locate(next, tiles[1 - current]);
      PrefetchTile(tiles[1 - current], call);
      PrefetchFactors(call, work.task, tiles[1 - current]);
    }
    LoadFactors(call, work.task, tiles[current], factors);
    if (direct) {
      AttendTile(work, DirectlyFrom(tiles[current], call.block_tokens, &factors), queries);
    } else {
      AttendBuffered(work, tiles[current], factors, queries);
    }
    if (next >= range.end) return;
    work.tile_begin = next;
    current = 1 - current;
  }
}

void ClearStates(const SoftmaxStates& states, uint32_t queries, uint32_t dim) {
  const size_t padded = PaddedDim(dim);
  for (uint32_t n = 0; n < queries; ++n) {
    states.max[n] = kEmptyMax;
    states.sum[n] = 0;
  }
  for (size_t i = 0; i < queries * padded; i += kLanes) Store(states.results + i, F32{});
}

void MergeStates(const SoftmaxStates& into, const SoftmaxStates& from, uint32_t queries,
                 uint32_t dim) {
  const size_t padded = PaddedDim(dim);
  for (uint32_t n = 0; n < queries; ++n) {
    if (from.max[n] == kEmptyMax) continue;
    const float max = into.max[n] > from.max[n] ? into.max[n] : from.max[n];
    const F32 into_factor = Set1(Exp2(into.max[n] - max));
    const F32 from_factor = Set1(Exp2(from.max[n] - max));
    into.max[n] = max;
    into.sum[n] = Fma(Set1(from.sum[n]), from_factor, Set1(into.sum[n]) * into_factor)[0];
    float* a = into.results + n * padded;
    const float* b = from.results + n * padded;
    for (uint32_t d = 0; d < padded; d += kLanes) {
      Store(a + d, Fma(Load(b + d), from_factor, Load(a + d) * into_factor));
    }
  }
}

// The task's queries, times scale and log2(e), side by side.
ESSOR_INLINE void LoadQueries(const AttentionCall& call, const AttentionTask& task, uint32_t group,
                              float* queries) {
  const F32 factor = Set1(call.scale * kLog2E);
  const uint32_t first_head = task.kv_head * group;
  for (uint32_t row = task.row_begin; row < task.row_end; ++row) {
    for (uint32_t head = first_head; head < first_head + group; ++head) {
      for (const QueryPart& part : call.queries) {
        if (part.dim == 0) continue;
        const float* from = part.data + size_t{task.sequence->first_row + row} * part.row_stride +
                            size_t{head} * part.head_stride;
        for (uint32_t d = 0; d < part.dim; d += kLanes) {
          StorePartial(queries + d, LoadPartial(from + d, part.dim - d) * factor, part.dim - d);
        }
        queries += part.dim;
      }
    }
  }
}

void AttendTask(const AttentionCall& call, const AttentionTask& task, float* scratch,
                const SoftmaxStates& into) {
  const uint32_t dim = call.value_dim;
  const uint32_t group = call.num_heads / call.num_kv_heads;
  const uint32_t queries = (task.row_end - task.row_begin) * group;
  const TileBuffers buffers = BuffersAt(scratch, queries, call);
  LoadQueries(call, task, group, buffers.queries);
  const PositionRange visible = {VisibleKeys(call, *task.sequence, task.row_begin).begin,
                                 VisibleKeys(call, *task.sequence, task.row_end - 1).end};
  const TileWork work = {call, task, buffers, group, 0};
  for (uint32_t p = task.partition_begin; p < task.partition_end; ++p) {
    const PositionRange range = Intersect(visible, {p * kKvPartition, (p + 1) * kKvPartition});
    if (range.begin >= range.end) continue;
    ClearStates(buffers.partition, queries, dim);
    for (uint32_t i = 0; i < queries * kLanes; i += kLanes) Store(buffers.lane_sums + i, F32{});
    switch (call.type) {
      case KvType::kFloat32:
        AttendRange<float>(work, range, queries);
        break;
      case KvType::kBFloat16:
        AttendRange<uint16_t>(work, range, queries);
        break;
      case KvType::kFp8:
        AttendRange<Float8E4M3>(work, range, queries);
        break;
      case KvType::kInt8:
        AttendRange<int8_t>(work, range, queries);
        break;
    }
    for (uint32_t n = 0; n < queries; ++n) {
      buffers.partition.sum[n] = ReduceAdd(Load(buffers.lane_sums + size_t{n} * kLanes));
    }
    MergeStates(into, buffers.partition, queries, dim);
  }
}

// A sink's weight beside keys whose largest score is `max`. Beyond 2^126 it leaves nothing of the
// keys, and need not grow on.
ESSOR_INLINE float SinkWeight(float sink, float max) {
  const float exponent = sink * kLog2E - max;
  return Exp2(exponent > 126.0f ? 126.0f : exponent);
}

void FinishTask(const AttentionCall& call, const AttentionTask& task, const SoftmaxStates& states) {
  const uint32_t dim = call.value_dim;
  const uint32_t group = call.num_heads / call.num_kv_heads;
  for (uint32_t n = 0; n < (task.row_end - task.row_begin) * group; ++n) {
    const size_t row = task.sequence->first_row + task.row_begin + n / group;
    const size_t head = size_t{task.kv_head} * group + n % group;
    float* y = call.y + (row * call.num_heads + head) * dim;
    const float* results = states.results + size_t{n} * PaddedDim(dim);
    const float sink = call.sinks == nullptr ? 0.0f : SinkWeight(call.sinks[head], states.max[n]);
    const F32 sum = Set1(states.sum[n] + sink);
    for (uint32_t d = 0; d < dim; d += kLanes) {
      StorePartial(y + d, Load(results + d) / sum, dim - d);
    }
  }
}

constexpr AttentionKernels kAttentionKernels = {
    .clear = ClearStates,
    .attend = AttendTask,
    .merge = MergeStates,
    .finish = FinishTask,
    .index_scores = IndexScores,
};

}  // namespace
}  // namespace essor::kernels
