// Causal attention over a paged KV cache. The result of a query row depends only on its own q and
// on the keys and values of its sequence: the same bits in prefill, chunked prefill and decode, in
// any batch.
//
// Dims: T query rows, Hq query heads, Hkv KV heads (Hq a multiple of Hkv), D head dim.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "common/kv_type.h"
#include "kernels/stream.h"

namespace essor::kernels {

// One layer's cache on one rank, allocated by the caller. Only WriteKv and Attention know the order
// inside a block; others may copy whole blocks, which are block_bytes() of keys and as many of
// values. Keys lie with their tokens side by side, as a query meets many of them at once, values
// with their dims. Where the type has scales, those of a block, [Hkv, block_tokens], are behind its
// elements.
struct PagedKv {
  void* k;  // [num_blocks]: [Hkv, D, block_tokens], scales
  void* v;  // [num_blocks]: [Hkv, block_tokens, D], scales
  KvType type;
  uint32_t num_blocks;
  uint32_t block_tokens;  // fast where a multiple of 16
  uint32_t num_kv_heads;  // Hkv
  uint32_t head_dim;      // D

  // From one block of keys, or of values, to the next.
  size_t block_bytes() const {
    return size_t{num_kv_heads} * block_tokens * KvVectorBytes(type, head_dim);
  }
};

// Rows of one sequence in the batch. Row i (of num_rows) is the token at position
// context_tokens + i and sees the keys at positions 0 .. context_tokens + i.
struct SequenceRows {
  uint32_t first_row;
  uint32_t num_rows;
  uint32_t context_tokens;  // already in the cache before this step
  // Covers context_tokens + num_rows slots. Blocks that hold no position which a row of the step
  // sees or is are never looked up: behind a window the table's entries may be anything.
  const uint32_t* block_table = nullptr;
  uint32_t slot = 0;  // of the sequence's state (kernels/linear_attention.h)
};

// Store the step's keys and values; to be called before Attention for the same rows.
struct WriteKvParams {
  PagedKv cache;
  const float* k;  // [T, Hkv, D], row stride k_stride floats
  const float* v;  // likewise
  uint32_t k_stride;
  uint32_t v_stride;
  std::span<const SequenceRows> sequences;
};
void WriteKv(const WriteKvParams& params, Stream& stream);

struct AttentionParams {
  PagedKv cache;
  // [T, Hq, D], row stride q_stride floats, head stride q_head_stride (0: D).
  const float* q;
  uint32_t q_stride;
  uint32_t q_head_stride = 0;
  uint32_t num_heads;       // Hq
  float scale;              // of q.k before the softmax
  uint32_t sliding_window;  // keys visible, the own one included; 0 = all
  // Only keys of the row's own chunk are visible, positions [n * chunk_size, (n + 1) * chunk_size);
  // 0 = all. Not together with a window.
  uint32_t chunk_size = 0;
  // [Hq] or null: one more score per head, not scaled, that takes part in every softmax and stands
  // for no key (gpt-oss; Xiao et al.: "Efficient streaming language models with attention sinks").
  const float* sinks = nullptr;
  std::span<const SequenceRows> sequences;
  float* y;  // [T, Hq * D]
};
void Attention(const AttentionParams& params, Stream& stream);

// Workspace that Attention or LatentAttention asks for, at most, on a CPU rank of `num_threads`
// threads.
struct AttentionLimits {
  uint32_t num_heads;
  uint32_t num_kv_heads;   // of latent attention: 1
  uint32_t key_dim;        // L + R
  uint32_t value_dim;      // L
  uint32_t max_rows;       // of a step
  uint32_t max_sequences;  // of a step
  uint32_t max_positions;  // of a sequence
};
size_t AttentionWorkspaceBytes(const AttentionLimits& limits, uint32_t num_threads);

}  // namespace essor::kernels
