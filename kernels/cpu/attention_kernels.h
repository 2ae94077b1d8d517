// What the CPU attention driver (attention.cc) and its inner loops (attention_inl.h) agree on.
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

// Keys that row `row` of a sequence sees.
static inline PositionRange VisibleKeys(const AttentionParams& params, const SequenceRows& sequence,
                                        uint32_t row) {
  const uint32_t end = sequence.context_tokens + row + 1;
  const uint32_t window = params.sliding_window;
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
  float* results;  // [queries, PaddedDim(D)]
};
static inline size_t SoftmaxStateFloats(uint32_t queries, uint32_t dim) {
  return size_t{queries} * (2 + PaddedDim(dim));
}
static inline SoftmaxStates SoftmaxStatesAt(float* memory, uint32_t queries) {
  return {memory, memory + queries, memory + 2 * size_t{queries}};
}

// Scratch of `attend` for tasks of up to `queries` queries: a tile of keys and one of values,
// lane sums, queries, and the states of one partition.
static inline size_t AttentionScratchFloats(uint32_t queries, uint32_t dim) {
  return 2 * size_t{PaddedDim(dim)} * kKvTile + size_t{queries} * (kMaxLanes + PaddedDim(dim)) +
         SoftmaxStateFloats(queries, dim);
}

struct AttentionKernels {
  void (*clear)(const SoftmaxStates& states, uint32_t queries, uint32_t dim);
  // Computes the task's partitions and merges them, in order, into the states of its queries.
  void (*attend)(const AttentionParams& params, const AttentionTask& task, float* scratch,
                 const SoftmaxStates& into);
  // `from` holds later positions than `into`.
  void (*merge)(const SoftmaxStates& into, const SoftmaxStates& from, uint32_t queries,
                uint32_t dim);
  // y of the task's rows and heads.
  void (*finish)(const AttentionParams& params, const AttentionTask& task,
                 const SoftmaxStates& states);
};

const AttentionKernels& PortableAttentionKernels();
const AttentionKernels& Avx2AttentionKernels();  // x86-64 only, like the next
const AttentionKernels& Avx512AttentionKernels();

}  // namespace essor::kernels
