// What the CPU attention driver (attention_driver.h) and its inner loops (attention_inl.h) agree
// on, for grouped-query attention and latent attention alike.
//
// The order of every sum follows from positions alone, so that a row has the same bits however it
// came to be computed. Positions are cut into tiles of kKvTile and partitions of kKvPartition, both
// counted from position 0 of the sequence. Within a partition an online softmax (Milakov,
// Gimelshein: "Online normalizer calculation for softmax", 2018) goes through the tiles in order;
// the partitions' results are merged in order, whether one thread computed them in turn or several
// at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "common/kv_type.h"
#include "kernels/attention.h"
#include "kernels/cpu/cpu_stream.h"

namespace essor::kernels {

inline constexpr uint32_t kKvTile = 64;
inline constexpr uint32_t kKvPartition = 256;
// Queries (rows times heads of a KV group) of one task: enough that loading and transposing a tile
// of keys costs little beside using it, few enough that queries and results stay in the L2 cache.
inline constexpr uint32_t kQueriesPerTask = 96;
inline constexpr uint32_t kMaxLanes = 16;

// Functions here are static: each ISA's file has its own, compiled for it (see simd_inl.h).

// `dim` padded to whole vectors on every ISA.
static inline uint32_t PaddedDim(uint32_t dim) {
  return (dim + kMaxLanes - 1) / kMaxLanes * kMaxLanes;
}

// Positions from `begin` to before `end`; empty where begin >= end.
struct PositionRange {
  uint32_t begin;
  uint32_t end;
};

// Some of the dims of all queries: those of row r and head h begin at data + r * row_stride + h *
// head_stride.
struct QueryPart {
  const float* data;
  uint32_t dim;
  uint32_t row_stride;
  uint32_t head_stride;
};

// One call of Attention or LatentAttention. D are the dims of keys, Dv those of values and results.
struct AttentionCall {
  // Separate keys and values, D being Dv: as PagedKv (kernels/attention.h) has them. Latents:
  // `keys` is null, `values` is the data of PagedLatents (kernels/latent_attention.h), Hkv is 1,
  // and a position's value is the first Dv dims of its key, which follow the others where
  // quantised.
  const void* keys;
  const void* values;
  KvType type;
  size_t block_bytes;     // from one block to the next, of keys and of values
  uint32_t value_stride;  // elements of `type` from one position's value to the next one's
  uint32_t block_tokens;
  uint32_t num_kv_heads;  // Hkv
  uint32_t key_dim;       // D
  uint32_t value_dim;     // Dv
  QueryPart queries[2];   // side by side they are D dims; the second may have none
  uint32_t num_heads;
  float scale;                   // of q.k before the softmax
  uint32_t sliding_window;       // keys visible, the own one included; 0 = all
  uint32_t chunk_size;           // keys of a row's own chunk are visible; 0 = all
  const float* sinks = nullptr;  // [num_heads] or null: scores that stand for no key
  std::span<const SequenceRows> sequences;
  float* y;  // [T, num_heads * Dv]
};

static inline bool HoldsLatents(const AttentionCall& call) { return call.keys == nullptr; }

// Keys that row `row` of a sequence sees. Neither end moves back from one row to the next.
static inline PositionRange VisibleKeys(const AttentionCall& call, const SequenceRows& sequence,
                                        uint32_t row) {
  const uint32_t end = sequence.context_tokens + row + 1;
  if (call.chunk_size != 0) return {(end - 1) / call.chunk_size * call.chunk_size, end};
  const uint32_t window = call.sliding_window;
  return {window != 0 && end > window ? end - window : 0, end};
}

// The queries of rows [row_begin, row_end) of a sequence on the heads of one KV head, over the keys
// of partitions [partition_begin, partition_end). Query n is row row_begin + n / G, head
// kv_head * G + n % G with G heads per KV head.
struct AttentionTask {
  const SequenceRows* sequence;
  uint32_t kv_head;
  uint32_t row_begin;
  uint32_t row_end;
  uint32_t partition_begin;
  uint32_t partition_end;
};

// Softmaxes in progress of consecutive queries: sum of 2^(score - max) and of that times v, with
// scores in units of log2. Empty: max = -infinity, sum and results 0. Non-owning.
struct SoftmaxStates {
  float* max;      // [queries]
  float* sum;      // [queries]
  float* results;  // [queries, PaddedDim(Dv)]
};
static inline size_t SoftmaxStateFloats(uint32_t queries, uint32_t value_dim) {
  return size_t{queries} * (2 + PaddedDim(value_dim));
}
static inline SoftmaxStates SoftmaxStatesAt(float* memory, uint32_t queries) {
  return {memory, memory + queries, memory + 2 * size_t{queries}};
}

// Scratch of `attend` for tasks of up to `queries` queries: a tile of keys and one of values,
// lane sums, queries, and the states of one partition.
static inline size_t AttentionScratchFloats(uint32_t queries, uint32_t key_dim,
                                            uint32_t value_dim) {
  return size_t{PaddedDim(key_dim) + PaddedDim(value_dim)} * kKvTile +
         size_t{queries} * (kMaxLanes + PaddedDim(key_dim)) +
         SoftmaxStateFloats(queries, value_dim);
}

// One row of SelectPositions (kernels/index_selection.h): its scores at positions [begin, end),
// which lie in an AttentionCall's `values` as latents do, D wide; `begin` is a multiple of kKvTile.
struct IndexTask {
  const SequenceRows* sequence;
  const float* queries;  // [num_heads, D]
  const float* weights;  // [num_heads]
  uint32_t num_heads;
  uint32_t begin;
  uint32_t end;
  float* scores;  // of position `begin`; end - begin
};

// Scratch of `index_scores`: a tile of keys.
static inline size_t IndexScratchFloats(uint32_t dim) { return size_t{PaddedDim(dim)} * kKvTile; }

struct AttentionKernels {
  void (*clear)(const SoftmaxStates& states, uint32_t queries, uint32_t value_dim);
  // Computes the task's partitions and merges them, in order, into the states of its queries.
  void (*attend)(const AttentionCall& call, const AttentionTask& task, float* scratch,
                 const SoftmaxStates& into);
  // `from` holds later positions than `into`.
  void (*merge)(const SoftmaxStates& into, const SoftmaxStates& from, uint32_t queries,
                uint32_t value_dim);
  // y of the task's rows and heads; a head's sink joins its softmax here, last of all.
  void (*finish)(const AttentionCall& call, const AttentionTask& task, const SoftmaxStates& states);
  void (*index_scores)(const AttentionCall& call, const IndexTask& task, float* scratch);
};

// `isa` is not kReference.
const AttentionKernels& AttentionKernelsFor(CpuIsa isa);

const AttentionKernels& PortableAttentionKernels();
const AttentionKernels& Avx2AttentionKernels();  // x86-64 only, like the next
const AttentionKernels& Avx512AttentionKernels();

}  // namespace essor::kernels
