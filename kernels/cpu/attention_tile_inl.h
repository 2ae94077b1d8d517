// Tiles of keys and values, as the loops of attention_inl.h read them: from the cache directly or
// from a buffer of floats. For the ISA this is compiled for; see simd_inl.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/cache_elements_inl.h"
#include "kernels/cpu/simd_inl.h"

namespace essor::kernels {
namespace {  // NOLINT(google-build-namespaces): see simd_inl.h

ESSOR_INLINE uint32_t Min(uint32_t a, uint32_t b) { return a < b ? a : b; }
ESSOR_INLINE uint32_t Max(uint32_t a, uint32_t b) { return a > b ? a : b; }
ESSOR_INLINE PositionRange Intersect(PositionRange a, PositionRange b) {
  return {Max(a.begin, b.begin), Min(a.end, b.end)};
}

struct TileFactors;  // tile_factors_inl.h

// Where a tile lies in the cache.
template <typename T>
struct CachedTile {
  uint32_t begin;          // its first position
  PositionRange loaded;    // positions to be seen, counted from `begin`; only of those what follows
  const T* keys[kKvTile];  // d = 0; the next d is block_tokens further. Not of latents.
  const T* values[kKvTile];  // d = 0, dims side by side
};

// Positions of a tile that lie side by side in one block.
struct TileRun {
  size_t block_offset;  // bytes to the block
  uint32_t slot;        // of the first position in the block
  uint32_t begin;       // counted from the tile's first position
  uint32_t end;
};

// Calls body(run) for the runs of positions [begin + loaded.begin, begin + loaded.end).
template <typename Body>
ESSOR_INLINE void ForEachRun(const AttentionCall& call, const AttentionTask& task, uint32_t begin,
                             PositionRange loaded, const Body& body) {
  uint32_t block_index = (begin + loaded.begin) / call.block_tokens;
  uint32_t slot = (begin + loaded.begin) % call.block_tokens;
  for (uint32_t i = loaded.begin; i < loaded.end; ++block_index, slot = 0) {
    const uint32_t end = Min(loaded.end, i + (call.block_tokens - slot));
    body(TileRun{task.sequence->block_table[block_index] * call.block_bytes, slot, i, end});
    i = end;
  }
}

template <typename T>
ESSOR_INLINE void LocateTile(const AttentionCall& call, const AttentionTask& task, uint32_t begin,
                             PositionRange loaded, CachedTile<T>& tile) {
  tile.begin = begin;
  tile.loaded = loaded;
  const size_t first_slot = size_t{task.kv_head} * call.block_tokens;
  ForEachRun(call, task, begin, loaded, [&](const TileRun& run) {
    const T* values =
        reinterpret_cast<const T*>(static_cast<const std::byte*>(call.values) + run.block_offset) +
        (first_slot + run.slot) * call.value_stride;
    for (uint32_t i = run.begin; i < run.end; ++i) {
      tile.values[i] = values + size_t{i - run.begin} * call.value_stride;
    }
    if (HoldsLatents(call)) return;
    const T* keys =
        reinterpret_cast<const T*>(static_cast<const std::byte*>(call.keys) + run.block_offset) +
        first_slot * call.key_dim + run.slot;
    for (uint32_t i = run.begin; i < run.end; ++i) tile.keys[i] = keys + (i - run.begin);
  });
}

// Asks for the cache lines of a tile; the next tile's while this one is computed. Of the keys those
// of a block's first slot: where blocks are of 16 or 32 tokens each line holds several d.
template <typename T>
ESSOR_INLINE void PrefetchTile(const CachedTile<T>& tile, const AttentionCall& call) {
  constexpr uint32_t kLineElements = 64 / sizeof(T);
  for (uint32_t i = tile.loaded.begin; i < tile.loaded.end; ++i) {
    for (uint32_t d = 0; d < call.value_stride; d += kLineElements) {
      __builtin_prefetch(tile.values[i] + d);
    }
  }
  if (HoldsLatents(call)) return;
  const uint32_t block_elements = call.key_dim * call.block_tokens;
  for (uint32_t i = tile.loaded.begin; i < tile.loaded.end; ++i) {
    const uint32_t slot = (tile.begin + i) % call.block_tokens;
    if (slot != 0 && i != tile.loaded.begin) continue;
    const T* block = tile.keys[i] - slot;
    for (uint32_t e = 0; e < block_elements; e += kLineElements) __builtin_prefetch(block + e);
  }
}

// Keys and values as the loops below read them: kLanes positions from p (a multiple of kLanes) for
// one d, and kLanes dims of one position. With kFactors these are still to be multiplied by
// `factors`; without it is null.
template <bool Factors>
struct BufferedTile {
  static constexpr bool kFactors = Factors;
  const float* keys;    // [D, kKvTile]
  const float* values;  // [kKvTile, padded]
  uint32_t padded;
  const TileFactors* factors;

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
  static constexpr bool kFactors = kHasFactor<T>;
  const T* keys[kKvTile / kLanes];
  const T* const* values;
  uint32_t key_stride;
  const TileFactors* factors;

  ESSOR_INLINE F32 Keys(uint32_t p, uint32_t d) const {
    return LoadElements(keys[p / kLanes] + size_t{d} * key_stride);
  }
  ESSOR_INLINE F32 Values(uint32_t p, uint32_t d) const { return LoadElements(values[p] + d); }
};

// A column that holds no position to be seen is another one's: its scores are never looked at.
// Within a column slots not yet written are read as well, with the same excuse.
template <typename T>
ESSOR_INLINE DirectTile<T> DirectlyFrom(const CachedTile<T>& tile, uint32_t key_stride,
                                        const TileFactors* factors) {
  DirectTile<T> direct;
  direct.values = tile.values;
  direct.key_stride = key_stride;
  direct.factors = factors;
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
ESSOR_INLINE void LoadTile(const CachedTile<T>& tile, const AttentionCall& call, float* keys,
                           float* values) {
  const uint32_t dim = call.value_dim;
  const size_t padded = PaddedDim(dim);
  if (call.block_tokens % kLanes == 0) {
    const DirectTile<T> columns = DirectlyFrom(tile, call.block_tokens, nullptr);
    for (uint32_t d = 0; d < call.key_dim; ++d) {
#pragma GCC unroll 16
      for (uint32_t p = 0; p < kKvTile; p += kLanes) {
        Store(keys + size_t{d} * kKvTile + p, columns.Keys(p, d));
      }
    }
  } else {
    for (uint32_t i = tile.loaded.begin; i < tile.loaded.end; ++i) {
      for (uint32_t d = 0; d < call.key_dim; ++d) {
        keys[size_t{d} * kKvTile + i] =
            LoadElementsPartial(tile.keys[i] + size_t{d} * call.block_tokens, 1)[0];
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

// Dims [0, dim) of the loaded positions, transposed, to `keys` from row 0 on, whole vectors of rows
// while `keys` has `key_rows`. Load(i, d) gives kLanes dims of position i from d on.
template <typename LoadRow>
ESSOR_INLINE void TransposeRows(PositionRange loaded, uint32_t dim, uint32_t key_rows, float* keys,
                                const LoadRow& load) {
  for (uint32_t p = loaded.begin / kLanes * kLanes; p < loaded.end; p += kLanes) {
    const PositionRange range = Intersect(loaded, {p, p + kLanes});
    for (uint32_t d = 0; d < dim; d += kLanes) {
      F32 rows[kLanes] = {};
      for (uint32_t i = range.begin; i < range.end; ++i) rows[i - p] = load(i, d);
      Transpose(rows);
      const uint32_t count = Min(key_rows - d, kLanes);
      for (uint32_t j = 0; j < count; ++j) Store(keys + size_t{d + j} * kKvTile + p, rows[j]);
    }
  }
}

// The same for latents: each is read once and goes, as it is, to the values (a last vector may
// bring dims of the key along, into lanes that nobody reads) and, transposed, to the keys.
template <typename T>
ESSOR_INLINE void LoadLatentTile(const CachedTile<T>& tile, const AttentionCall& call, float* keys,
                                 float* values) {
  const uint32_t dim = call.key_dim;
  const size_t padded = PaddedDim(call.value_dim);
  TransposeRows(tile.loaded, dim, PaddedDim(dim), keys, [&](uint32_t i, uint32_t d) {
    const F32 row = LoadElementsPartial(tile.values[i] + d, dim - d);
    if (d < call.value_dim) Store(values + i * padded + d, row);
    return row;
  });
}

// What is in front of a row of quantised latents, and the latent's factor.
template <typename T>
constexpr uint32_t kRowScaleBytes = 0;
template <>
constexpr uint32_t kRowScaleBytes<int8_t> = sizeof(float);
ESSOR_INLINE float FactorOfRow(const Float8E4M3*) { return kE4M3Factor; }
ESSOR_INLINE float FactorOfRow(const int8_t* row) {
  float scale;
  __builtin_memcpy(&scale, row, sizeof(scale));
  return scale;
}

// The same where latents are quantised. Their factors are applied here, since the rotated keys have
// none; what follows a latent in its last vector is written over by the rotated key.
template <typename T>
ESSOR_INLINE void LoadQuantisedLatentTile(const CachedTile<T>& tile, const AttentionCall& call,
                                          float* keys, float* values) {
  const uint32_t dim = call.value_dim;
  const uint32_t rope_dim = call.key_dim - dim;
  const uint32_t latent_at = kRowScaleBytes<T> + rope_dim * sizeof(uint16_t);
  const size_t padded = PaddedDim(dim);
  TransposeRows(tile.loaded, dim, PaddedDim(call.key_dim), keys, [&](uint32_t i, uint32_t d) {
    const F32 row = LoadElementsPartial(tile.values[i] + latent_at + d, dim - d) *
                    Set1(FactorOfRow(tile.values[i]));
    Store(values + i * padded + d, row);
    return row;
  });
  TransposeRows(
      tile.loaded, rope_dim, rope_dim, keys + size_t{dim} * kKvTile, [&](uint32_t i, uint32_t d) {
        const T* rope = tile.values[i] + kRowScaleBytes<T>;
        return LoadElementsPartial(reinterpret_cast<const uint16_t*>(rope) + d, rope_dim - d);
      });
}

}  // namespace
}  // namespace essor::kernels
