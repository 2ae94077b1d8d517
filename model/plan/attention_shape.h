// What planning and the engine ask of a layer's attention, whatever its kind.
#pragma once

#include <cstdint>

#include "common/kv_type.h"
#include "model/plan/parallel_plan.h"
#include "model/spec/model_spec.h"

namespace essor::model {

// Columns of one head in the output projection.
uint32_t OutputHeadDim(const AttentionSpec& attention);

// What one token takes in a layer's KV cache on a rank. That is one or two arrays of blocks, one
// behind the other, in which block b is the block_tokens * bytes from b * block_tokens * bytes on:
// keys and values; or latents and, with an indexer, its keys. A latent, and an indexer's key, is
// held once by every rank of a tensor-parallel group, since all heads read it.
struct KvTokenBytes {
  uint64_t first = 0;   // keys or latents, with their scales
  uint64_t second = 0;  // values with their scales, or index keys
  uint64_t total() const { return first + second; }
};
KvTokenBytes KvTokenBytesOf(const AttentionSpec& attention, const RankLayout::Layer& layer,
                            KvType type);

// Floats that a rank keeps of a whole sequence, however long it is, in one layer: what linear
// attention has instead of a KV cache. Float32 always: it is a sum over all tokens.
uint64_t StateFloatsPerSequence(const AttentionSpec& attention, const RankLayout::Layer& layer);

// Widths, in floats, of the rows that a rank's attention layer works on (worker/layers/layer.h).
struct AttentionWidths {
  uint64_t query = 0;         // queries of the rank's heads; linear attention: all of its inputs
  uint64_t latent_query = 0;  // latent attention: the same heads' queries over the latent
  uint64_t query_latent = 0;  // latent attention: the latent that queries are made from
  // Keys, the latent, lightning attention's output gate, or what a delta net's convolution gave.
  uint64_t key = 0;
  uint64_t value = 0;         // values, the rotated key beside the latent, or a delta net's gates
  uint64_t result = 0;        // what attention gives: per head a value, or a sum of latents
  uint64_t norm_squares = 0;  // sums for norms whose width is spread over ranks
  // Of latent attention with an indexer: its queries, its key, the weights of its heads, and (of 32
  // bits as well) the places of the chosen positions.
  uint64_t index_query = 0;
  uint64_t index_key = 0;
  uint64_t index_weights = 0;
  uint64_t index_slots = 0;

  uint64_t total() const {
    return query + latent_query + query_latent + key + value + result + norm_squares + index_query +
           index_key + index_weights + index_slots;
  }
};
AttentionWidths AttentionWidthsOf(const AttentionSpec& attention, const RankLayout::Layer& layer);
// The larger of each.
AttentionWidths Widest(const AttentionWidths& a, const AttentionWidths& b);

// How the attention kernels see the layer on a rank. All 0 without a KV cache.
struct AttentionHeads {
  uint64_t kv_heads = 0;  // sets of keys and values
  uint64_t group = 0;     // query heads that read each
  uint64_t key_dim = 0;
  uint64_t value_dim = 0;
  uint64_t sliding_window = 0;  // 0 = all keys
  uint64_t chunk_size = 0;      // likewise
  // Of an indexer, which scores all keys and leaves `chosen` of them to attention; 0 without.
  uint64_t index_heads = 0;
  uint64_t index_dim = 0;
  uint64_t chosen = 0;
};
AttentionHeads AttentionHeadsOf(const AttentionSpec& attention, const RankLayout::Layer& layer);

}  // namespace essor::model
