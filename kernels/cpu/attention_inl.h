// The functions of AttentionKernels (attention_kernels.h) for the ISA this is compiled for.
//
// Keys are taken as columns of kLanes positions for each d, so that lanes are positions and a score
// is one chain of multiply-adds over d; values as rows, so that lanes are dims and a result is one
// chain over positions. How many queries go through a tile together then changes no chain, only
// how often a loaded value is used. For many queries a tile is first converted to floats in a
// buffer, [D][kKvTile] and [kKvTile][PaddedDim(D)]; for few it is used from the cache directly.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/simd_inl.h"

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

ESSOR_INLINE uint32_t Min(uint32_t a, uint32_t b) { return a < b ? a : b; }
ESSOR_INLINE uint32_t Max(uint32_t a, uint32_t b) { return a > b ? a : b; }
ESSOR_INLINE PositionRange Intersect(PositionRange a, PositionRange b) {
  return {Max(a.begin, b.begin), Min(a.end, b.end)};
}

// One thread's memory for a task.
struct TileBuffers {
  float* queries;           // [queries, D], times scale and log2(e)
  float* keys;              // [PaddedDim(D), kKvTile]
  float* values;            // [kKvTile, PaddedDim(D)]
  float* lane_sums;         // [queries, kLanes]: the partition's sums before adding the lanes
  SoftmaxStates partition;  // the partition in work; its `sum` is filled at its end
};

// `scratch` is AttentionScratchFloats() long.
ESSOR_INLINE TileBuffers BuffersAt(float* scratch, uint32_t queries, uint32_t dim) {
  const size_t padded = PaddedDim(dim);
  TileBuffers buffers;
  buffers.keys = scratch;
  buffers.values = buffers.keys + padded * kKvTile;
  buffers.lane_sums = buffers.values + padded * kKvTile;
  buffers.queries = buffers.lane_sums + size_t{queries} * kMaxLanes;
  buffers.partition = SoftmaxStatesAt(buffers.queries + queries * padded, queries);
  return buffers;
}

ESSOR_INLINE F32 LoadElements(const float* p) { return Load(p); }
ESSOR_INLINE F32 LoadElements(const uint16_t* p) { return LoadBf16(p); }
ESSOR_INLINE F32 LoadElementsPartial(const float* p, uint32_t n) { return LoadPartial(p, n); }
ESSOR_INLINE F32 LoadElementsPartial(const uint16_t* p, uint32_t n) {
  if (n >= kLanes) return LoadBf16(p);
  uint16_t padded[kLanes] = {};
  for (uint32_t i = 0; i < n; ++i) padded[i] = p[i];
  return LoadBf16(padded);
}

// Where a tile lies in the cache.
template <typename T>
struct CachedTile {
  uint32_t begin;          // its first position
  PositionRange loaded;    // positions to be seen, counted from `begin`; only of those what follows
  const T* keys[kKvTile];  // d = 0; the next d is block_tokens further
  const T* values[kKvTile];  // d = 0, dims side by side
};

template <typename T>
ESSOR_INLINE void LocateTile(const PagedKv& cache, const AttentionTask& task, uint32_t begin,
                             PositionRange loaded, CachedTile<T>& tile) {
  tile.begin = begin;
  tile.loaded = loaded;
  uint32_t block_index = (begin + loaded.begin) / cache.block_tokens;
  uint32_t slot = (begin + loaded.begin) % cache.block_tokens;
  for (uint32_t i = loaded.begin; i < loaded.end; ++block_index, slot = 0) {
    const size_t head =
        size_t{task.sequence->block_table[block_index]} * cache.num_kv_heads + task.kv_head;
    const size_t offset = head * cache.block_tokens * cache.head_dim;
    const T* keys = static_cast<const T*>(cache.k) + offset;
    const T* values = static_cast<const T*>(cache.v) + offset;
    const uint32_t run_end = Min(loaded.end, i + (cache.block_tokens - slot));
    for (; i < run_end; ++i, ++slot) {
      tile.keys[i] = keys + slot;
      tile.values[i] = values + size_t{slot} * cache.head_dim;
    }
  }
}

// Asks for the cache lines of a tile; the next tile's while this one is computed. Of the keys those
// of a block's first slot: where blocks are of 16 or 32 tokens each line holds several d.
template <typename T>
ESSOR_INLINE void PrefetchTile(const CachedTile<T>& tile, const PagedKv& cache) {
  constexpr uint32_t kLineElements = 64 / sizeof(T);
  for (uint32_t i = tile.loaded.begin; i < tile.loaded.end; ++i) {
    for (uint32_t d = 0; d < cache.head_dim; d += kLineElements) {
      __builtin_prefetch(tile.values[i] + d);
    }
  }
  const uint32_t block_elements = cache.head_dim * cache.block_tokens;
  for (uint32_t i = tile.loaded.begin; i < tile.loaded.end; ++i) {
    const uint32_t slot = (tile.begin + i) % cache.block_tokens;
    if (slot != 0 && i != tile.loaded.begin) continue;
    const T* block = tile.keys[i] - slot;
    for (uint32_t e = 0; e < block_elements; e += kLineElements) __builtin_prefetch(block + e);
  }
}

// Keys and values as the loops below read them: kLanes positions from p (a multiple of kLanes) for
// one d, and kLanes dims of one position.
struct BufferedTile {
  const float* keys;    // [D, kKvTile]
  const float* values;  // [kKvTile, padded]
  uint32_t padded;

  ESSOR_INLINE F32 Keys(uint32_t p, uint32_t d) const {
    return Load(keys + size_t{d} * kKvTile + p);
  }
  ESSOR_INLINE F32 Values(uint32_t p, uint32_t d) const {
    return Load(values + size_t{p} * padded + d);
  }
};

// Only where block_tokens is a multiple of kLanes, so that no column spans two blocks, and D of
// kMaxLanes.
template <typename T>
struct DirectTile {
  const T* keys[kKvTile / kLanes];
  const T* const* values;
  uint32_t key_stride;

  ESSOR_INLINE F32 Keys(uint32_t p, uint32_t d) const {
    return LoadElements(keys[p / kLanes] + size_t{d} * key_stride);
  }
  ESSOR_INLINE F32 Values(uint32_t p, uint32_t d) const { return LoadElements(values[p] + d); }
};

// A column that holds no position to be seen is another one's: its scores are never looked at.
// Within a column slots not yet written are read as well, with the same excuse.
template <typename T>
ESSOR_INLINE DirectTile<T> DirectlyFrom(const CachedTile<T>& tile, uint32_t key_stride) {
  DirectTile<T> direct;
  direct.values = tile.values;
  direct.key_stride = key_stride;
  for (uint32_t g = 0; g < kKvTile / kLanes; ++g) {
    // A position of the column that is loaded, or the first that is.
    uint32_t at = Max(g * kLanes, tile.loaded.begin);
    uint32_t column = at / kLanes * kLanes;
    if (column != g * kLanes || at >= tile.loaded.end) {
      at = tile.loaded.begin;
      column = at / kLanes * kLanes;
    }
    direct.keys[g] = tile.keys[at] - (at - column);
  }
  return direct;
}

template <typename T>
ESSOR_INLINE void LoadTile(const CachedTile<T>& tile, const PagedKv& cache, float* keys,
                           float* values) {
  const uint32_t dim = cache.head_dim;
  const size_t padded = PaddedDim(dim);
  if (cache.block_tokens % kLanes == 0) {
    const DirectTile<T> columns = DirectlyFrom(tile, cache.block_tokens);
    for (uint32_t d = 0; d < dim; ++d) {
#pragma GCC unroll 16
      for (uint32_t p = 0; p < kKvTile; p += kLanes) {
        Store(keys + size_t{d} * kKvTile + p, columns.Keys(p, d));
      }
    }
  } else {
    for (uint32_t i = tile.loaded.begin; i < tile.loaded.end; ++i) {
      for (uint32_t d = 0; d < dim; ++d) {
        keys[size_t{d} * kKvTile + i] =
            LoadElementsPartial(tile.keys[i] + size_t{d} * cache.block_tokens, 1)[0];
      }
    }
  }
  for (uint32_t i = tile.loaded.begin; i < tile.loaded.end; ++i) {
    const T* from = tile.values[i];
    float* to = values + i * padded;
    uint32_t d = 0;
    for (; d + kLanes <= dim; d += kLanes) Store(to + d, LoadElements(from + d));
    if (d < dim) Store(to + d, LoadElementsPartial(from + d, dim - d));
  }
}

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
        Store(scores[r] + p + j * kLanes, sums[r][j]);
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

// A task, its memory, and where its tile begins.
struct TileWork {
  const AttentionParams& params;
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
  const uint32_t dim = work.params.cache.head_dim;
  const uint32_t padded = PaddedDim(dim);
  PositionRange ranges[Queries];
  PositionRange any = {kKvTile, 0};
  PositionRange all = {0, kKvTile};
  uint32_t row = task.row_begin + first / work.group;
  uint32_t head = first % work.group;
  for (uint32_t r = 0; r < Queries; ++r) {
    PositionRange visible = VisibleKeys(work.params, *task.sequence, row);
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

// The keys of `range` (positions, within one partition) into buffers.partition.
template <typename T>
ESSOR_INLINE void AttendRange(TileWork work, PositionRange range, uint32_t queries) {
  const PagedKv& cache = work.params.cache;
  const bool direct = queries <= 2 * kBlockQueries && cache.block_tokens % kLanes == 0 &&
                      cache.head_dim % kMaxLanes == 0;
  const BufferedTile buffered = {work.buffers.keys, work.buffers.values, PaddedDim(cache.head_dim)};
  CachedTile<T> tiles[2];  // this one and the next
  uint32_t current = 0;
  const auto locate = [&](uint32_t begin, CachedTile<T>& tile) {
    const PositionRange positions = Intersect(range, {begin, begin + kKvTile});
    LocateTile(cache, work.task, begin, {positions.begin - begin, positions.end - begin}, tile);
  };
  work.tile_begin = range.begin / kKvTile * kKvTile;
  locate(work.tile_begin, tiles[0]);
  while (true) {
    const uint32_t next = work.tile_begin + kKvTile;
    if (next < range.end) {
      locate(next, tiles[1 - current]);
      PrefetchTile(tiles[1 - current], cache);
    }
    if (direct) {
      AttendTile(work, DirectlyFrom(tiles[current], cache.block_tokens), queries);
    } else {
      LoadTile(tiles[current], cache, work.buffers.keys, work.buffers.values);
      AttendTile(work, buffered, queries);
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
ESSOR_INLINE void LoadQueries(const AttentionParams& params, const AttentionTask& task,
                              uint32_t group, float* queries) {
  const uint32_t dim = params.cache.head_dim;
  const F32 factor = Set1(params.scale * kLog2E);
  for (uint32_t row = task.row_begin; row < task.row_end; ++row) {
    const float* heads = params.q + size_t{task.sequence->first_row + row} * params.q_stride +
                         size_t{task.kv_head} * group * dim;
    for (uint32_t i = 0; i < group * dim; i += kLanes) {
      StorePartial(queries + i, LoadPartial(heads + i, group * dim - i) * factor, group * dim - i);
    }
    queries += size_t{group} * dim;
  }
}

void AttendTask(const AttentionParams& params, const AttentionTask& task, float* scratch,
                const SoftmaxStates& into) {
  const uint32_t dim = params.cache.head_dim;
  const uint32_t group = params.num_heads / params.cache.num_kv_heads;
  const uint32_t queries = (task.row_end - task.row_begin) * group;
  const TileBuffers buffers = BuffersAt(scratch, queries, dim);
  LoadQueries(params, task, group, buffers.queries);
  const PositionRange visible = {VisibleKeys(params, *task.sequence, task.row_begin).begin,
                                 VisibleKeys(params, *task.sequence, task.row_end - 1).end};
  const TileWork work = {params, task, buffers, group, 0};
  for (uint32_t p = task.partition_begin; p < task.partition_end; ++p) {
    const PositionRange range = Intersect(visible, {p * kKvPartition, (p + 1) * kKvPartition});
    if (range.begin >= range.end) continue;
    ClearStates(buffers.partition, queries, dim);
    for (uint32_t i = 0; i < queries * kLanes; i += kLanes) Store(buffers.lane_sums + i, F32{});
    if (params.cache.fp32) {
      AttendRange<float>(work, range, queries);
    } else {
      AttendRange<uint16_t>(work, range, queries);
    }
    for (uint32_t n = 0; n < queries; ++n) {
      buffers.partition.sum[n] = ReduceAdd(Load(buffers.lane_sums + size_t{n} * kLanes));
    }
    MergeStates(into, buffers.partition, queries, dim);
  }
}

void FinishTask(const AttentionParams& params, const AttentionTask& task,
                const SoftmaxStates& states) {
  const uint32_t dim = params.cache.head_dim;
  const uint32_t group = params.num_heads / params.cache.num_kv_heads;
  for (uint32_t n = 0; n < (task.row_end - task.row_begin) * group; ++n) {
    const size_t row = task.sequence->first_row + task.row_begin + n / group;
    const size_t head = size_t{task.kv_head} * group + n % group;
    float* y = params.y + (row * params.num_heads + head) * dim;
    const float* results = states.results + size_t{n} * PaddedDim(dim);
    const F32 sum = Set1(states.sum[n]);
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
};

}  // namespace
}  // namespace essor::kernels
