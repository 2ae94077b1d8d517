// Tiles of keys and values, as the loops of attention_inl.h read them: from the cache directly or
// from a buffer of floats. For the ISA this is compiled for; see simd_inl.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/simd_inl.h"

namespace essor::kernels {
namespace {  // NOLINT(google-build-namespaces): see simd_inl.h

ESSOR_INLINE uint32_t Min(uint32_t a, uint32_t b) { return a < b ? a : b; }
ESSOR_INLINE uint32_t Max(uint32_t a, uint32_t b) { return a > b ? a : b; }
ESSOR_INLINE PositionRange Intersect(PositionRange a, PositionRange b) {
  return {Max(a.begin, b.begin), Min(a.end, b.end)};
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
  const T* keys[kKvTile];  // d = 0; the next d is block_tokens further. Not of latents.
  const T* values[kKvTile];  // d = 0, dims side by side
};

template <typename T>
ESSOR_INLINE void LocateTile(const AttentionCall& call, const AttentionTask& task, uint32_t begin,
                             PositionRange loaded, CachedTile<T>& tile) {
  tile.begin = begin;
  tile.loaded = loaded;
  uint32_t block_index = (begin + loaded.begin) / call.block_tokens;
  uint32_t slot = (begin + loaded.begin) % call.block_tokens;
  for (uint32_t i = loaded.begin; i < loaded.end; ++block_index, slot = 0) {
    const size_t head =
        size_t{task.sequence->block_table[block_index]} * call.num_kv_heads + task.kv_head;
    const size_t first_slot = head * call.block_tokens;
    const T* values = static_cast<const T*>(call.values) + first_slot * ValueStride(call);
    const uint32_t run_begin = i;
    const uint32_t run_end = Min(loaded.end, i + (call.block_tokens - slot));
    for (; i < run_end; ++i) {
      tile.values[i] = values + size_t{slot + (i - run_begin)} * ValueStride(call);
    }
    if (HoldsLatents(call)) continue;
    const T* keys = static_cast<const T*>(call.keys) + first_slot * call.key_dim;
    for (i = run_begin; i < run_end; ++i) tile.keys[i] = keys + slot + (i - run_begin);
  }
}

// Asks for the cache lines of a tile; the next tile's while this one is computed. Of the keys those
// of a block's first slot: where blocks are of 16 or 32 tokens each line holds several d.
template <typename T>
ESSOR_INLINE void PrefetchTile(const CachedTile<T>& tile, const AttentionCall& call) {
  constexpr uint32_t kLineElements = 64 / sizeof(T);
  for (uint32_t i = tile.loaded.begin; i < tile.loaded.end; ++i) {
    for (uint32_t d = 0; d < ValueStride(call); d += kLineElements) {
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
ESSOR_INLINE void LoadTile(const CachedTile<T>& tile, const AttentionCall& call, float* keys,
                           float* values) {
  const uint32_t dim = call.value_dim;
  const size_t padded = PaddedDim(dim);
  if (call.block_tokens % kLanes == 0) {
    const DirectTile<T> columns = DirectlyFrom(tile, call.block_tokens);
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

// The same for latents: each is read once and goes, as it is, to the values (a last vector may
// bring dims of the key along, into lanes that nobody reads) and, transposed, to the keys.
template <typename T>
ESSOR_INLINE void LoadLatentTile(const CachedTile<T>& tile, const AttentionCall& call, float* keys,
                                 float* values) {
  const uint32_t dim = call.key_dim;
  const size_t padded = PaddedDim(call.value_dim);
  for (uint32_t p = tile.loaded.begin / kLanes * kLanes; p < tile.loaded.end; p += kLanes) {
    const PositionRange range = Intersect(tile.loaded, {p, p + kLanes});
    for (uint32_t d = 0; d < dim; d += kLanes) {
      F32 rows[kLanes] = {};
      for (uint32_t i = range.begin; i < range.end; ++i) {
        const F32 row = LoadElementsPartial(tile.values[i] + d, dim - d);
        rows[i - p] = row;
        if (d < call.value_dim) Store(values + i * padded + d, row);
      }
      Transpose(rows);
      for (uint32_t j = 0; j < kLanes; ++j) Store(keys + size_t{d + j} * kKvTile + p, rows[j]);
    }
  }
}

}  // namespace
}  // namespace essor::kernels
