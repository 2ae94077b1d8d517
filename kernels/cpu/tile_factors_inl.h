// Factors of quantised keys and values (cache_elements_inl.h), tile by tile. For the ISA this is
// compiled for; see simd_inl.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/attention_tile_inl.h"
#include "kernels/cpu/simd_inl.h"

namespace essor::kernels {
namespace {  // NOLINT(google-build-namespaces): see simd_inl.h

// What a tile's loaded keys and values (cache_elements_inl.h) are to be multiplied by, for each
// position: the products of a key with its factor, once for all its dims, and likewise the weight
// of a value.
struct TileFactors {
  alignas(64) float keys[kKvTile];
  alignas(64) float values[kKvTile];
};

// Bytes from a block to the scale of a KV head's first slot. Not of latents.
ESSOR_INLINE size_t ScaleOffset(const AttentionCall& call, uint32_t kv_head) {
  const size_t slots = size_t{call.num_kv_heads} * call.block_tokens;
  return slots * call.key_dim + size_t{kv_head} * call.block_tokens * sizeof(float);
}

// Of positions not loaded they may be anything.
ESSOR_INLINE void LoadScales(const AttentionCall& call, const AttentionTask& task, uint32_t begin,
                             PositionRange loaded, TileFactors& factors) {
  const size_t offset = ScaleOffset(call, task.kv_head);
  ForEachRun(call, task, begin, loaded, [&](const TileRun& run) {
    const size_t at = run.block_offset + offset + run.slot * sizeof(float);
    const size_t bytes = (run.end - run.begin) * sizeof(float);
    __builtin_memcpy(factors.keys + run.begin, static_cast<const std::byte*>(call.keys) + at,
                     bytes);
    __builtin_memcpy(factors.values + run.begin, static_cast<const std::byte*>(call.values) + at,
                     bytes);
  });
}

ESSOR_INLINE void PrefetchScales(const AttentionCall& call, const AttentionTask& task,
                                 uint32_t begin, PositionRange loaded) {
  const size_t offset = ScaleOffset(call, task.kv_head);
  const auto prefetch = [&](size_t at) {
    __builtin_prefetch(static_cast<const std::byte*>(call.keys) + at);
    __builtin_prefetch(static_cast<const std::byte*>(call.values) + at);
  };
  ForEachRun(call, task, begin, loaded, [&](const TileRun& run) {
    const size_t first = run.block_offset + offset + run.slot * sizeof(float);
    prefetch(first);
    prefetch(first + (run.end - run.begin - 1) * sizeof(float));
  });
}

// What the tiles of a task begin with: e4m3 elements have the same factor everywhere, and it is
// never changed.
template <typename T>
ESSOR_INLINE TileFactors InitialFactors() {
  TileFactors factors;
  if constexpr (kHasFactor<T>) {
    for (uint32_t p = 0; p < kKvTile; ++p) factors.keys[p] = factors.values[p] = kE4M3Factor;
  }
  return factors;
}

// Only bytes have their factors in the cache; LoadQuantisedLatentTile takes those of latents.
template <typename T>
ESSOR_INLINE void PrefetchFactors(const AttentionCall&, const AttentionTask&,
                                  const CachedTile<T>&) {}
ESSOR_INLINE void PrefetchFactors(const AttentionCall& call, const AttentionTask& task,
                                  const CachedTile<int8_t>& tile) {
  if (!HoldsLatents(call)) PrefetchScales(call, task, tile.begin, tile.loaded);
}

template <typename T>
ESSOR_INLINE void LoadFactors(const AttentionCall&, const AttentionTask&, const CachedTile<T>&,
                              TileFactors&) {}
ESSOR_INLINE void LoadFactors(const AttentionCall& call, const AttentionTask& task,
                              const CachedTile<int8_t>& tile, TileFactors& factors) {
  if (!HoldsLatents(call)) LoadScales(call, task, tile.begin, tile.loaded, factors);
}

}  // namespace
}  // namespace essor::kernels
