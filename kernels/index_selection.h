// Which cached positions a row of sparse attention reads: the "lightning indexer" of DeepSeek V3.2
// (DeepSeek-V3.2-Exp technical report, section 2.1). A row's choice depends on its own query and on
// the keys of its sequence only: the same in prefill, chunked prefill and decode, in any batch.
//
// Dims: T query rows, H index heads, D dims of an index head, K positions chosen.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/attention.h"
#include "kernels/stream.h"

namespace essor::kernels {

// One layer's index keys on one rank, one per token for all heads; allocated by the caller. Only
// WriteIndexKeys and SelectPositions know the order inside a block; others may copy whole blocks.
// Never quantised: what rounding does to a choice is not bounded by how far it moves a score.
struct PagedIndexKeys {
  void* data;   // [num_blocks, block_tokens, D]
  KvType type;  // float32 or bfloat16
  uint32_t num_blocks;
  uint32_t block_tokens;
  uint32_t dim;  // D

  size_t block_bytes() const { return block_tokens * KvVectorBytes(type, dim); }
};

// Store the step's keys; to be called before SelectPositions for the same rows.
struct WriteIndexKeysParams {
  PagedIndexKeys cache;
  const float* keys;  // [T, D], after norm and rotation
  std::span<const SequenceRows> sequences;
};
void WriteIndexKeys(const WriteIndexKeysParams& params, Stream& stream);

// For each row t that sees more than K positions, the K with the highest
//   score(t, s) = sum over h of weights[t, h] * max(0, q[t, h] . key_s),
// of equal ones the lower position first; NaN counts as the lowest score. (The published formula
// also multiplies by D^-0.5 * H^-0.5, which changes no order.) Rows that see no more than K
// positions read them all: nothing is computed or written for them.
struct SelectPositionsParams {
  PagedIndexKeys cache;
  const float* q;        // [T, H, D], after rotation
  const float* weights;  // [T, H]
  uint32_t num_heads;    // H
  uint32_t top_k;        // K
  std::span<const SequenceRows> sequences;
  // [T, K]: the chosen positions' places in the cache, block * block_tokens + slot, ascending by
  // position.
  uint32_t* slots;
};
void SelectPositions(const SelectPositionsParams& params, Stream& stream);

// Workspace that SelectPositions asks for, at most, on a CPU rank of `num_threads` threads: linear
// in the context, whatever the number of rows.
struct IndexLimits {
  uint32_t dim;            // D
  uint32_t max_rows;       // of a step
  uint32_t max_positions;  // of a sequence
};
size_t IndexWorkspaceBytes(const IndexLimits& limits, uint32_t num_threads);

}  // namespace essor::kernels
