#include "worker/layers/position_selector.h"

#include <algorithm>

#include "common/check.h"
#include "kernels/elementwise.h"
#include "kernels/linear.h"

namespace essor::worker {

PositionSelector::PositionSelector(const model::LatentAttention& attention,
                                   const LayerInputs& inputs, std::byte* cache)
    : spec_(*attention.indexer),
      rope_(attention.rope),
      weights_(inputs.weights->latent.indexer),
      inputs_(inputs),
      cache_({.data = cache,
              .type = UnquantisedType(inputs.cache.type),
              .num_blocks = inputs.cache.num_blocks,
              .block_tokens = inputs.cache.block_tokens,
              .dim = spec_.head_dim}) {
  // Places in the cache are 32 bits wide.
  ESSOR_CHECK(uint64_t{cache_.num_blocks} * cache_.block_tokens <= UINT32_MAX);
}

void PositionSelector::Choose(const Batch& batch, const float* x, const float* query_latent) {
  DivideRows(batch);
  MakeKeys(batch, x);
  if (chosen_.empty()) return;
  MakeQueries(batch, x, query_latent);
  kernels::SelectPositions({.cache = cache_,
                            .q = inputs_.scratch.index_query,
                            .weights = inputs_.scratch.index_weights,
                            .num_heads = spec_.num_heads,
                            .top_k = spec_.top_k,
                            .sequences = batch.sequences,
                            .slots = inputs_.scratch.index_slots},
                           *inputs_.stream);
}

PieceArray PositionSelector::KeptOfBlock() const {
  return {.data = static_cast<std::byte*>(cache_.data), .bytes = cache_.block_bytes()};
}

void PositionSelector::DivideRows(const Batch& batch) {
  whole_.clear();
  chosen_.clear();
  for (const kernels::SequenceRows& sequence : batch.sequences) {
    const uint32_t room = spec_.top_k - std::min(spec_.top_k, sequence.context_tokens);
    const uint32_t num_whole = std::min(room, sequence.num_rows);
    if (num_whole > 0) {
      whole_.push_back(sequence);
      whole_.back().num_rows = num_whole;
    }
    for (uint32_t i = num_whole; i < sequence.num_rows; ++i) {
      const uint32_t row = sequence.first_row + i;
      chosen_.push_back({.first_row = row,
                         .num_rows = 1,
                         .context_tokens = spec_.top_k - 1,
                         .block_table = inputs_.scratch.index_slots + size_t{row} * spec_.top_k});
    }
  }
}

void PositionSelector::MakeKeys(const Batch& batch, const float* x) {
  float* keys = inputs_.scratch.index_key;
  Multiply(batch, x, weights_.key, keys);
  kernels::LayerNorm({.x = keys,
                      .weight = weights_.key_norm,
                      .bias = weights_.key_norm_bias,
                      .y = keys,
                      .num_rows = batch.num_rows,
                      .width = spec_.head_dim,
                      .eps = static_cast<float>(spec_.key_norm_eps)},
                     *inputs_.stream);
  Rotate(batch, nullptr, keys);
  kernels::WriteIndexKeys({.cache = cache_, .keys = keys, .sequences = batch.sequences},
                          *inputs_.stream);
}

void PositionSelector::MakeQueries(const Batch& batch, const float* x, const float* query_latent) {
  Multiply(batch, query_latent, weights_.query, inputs_.scratch.index_query);
  Multiply(batch, x, weights_.weights, inputs_.scratch.index_weights);
  Rotate(batch, inputs_.scratch.index_query, nullptr);
}

void PositionSelector::Multiply(const Batch& batch, const float* x,
                                const kernels::PackedMatrix& weight, float* y) {
  const kernels::LinearOutput output{.weight = weight, .y = y, .y_stride = weight.n};
  kernels::Linear(
      {.x = x, .x_stride = weight.k, .num_rows = batch.num_rows, .outputs = {&output, 1}},
      *inputs_.stream);
}

void PositionSelector::Rotate(const Batch& batch, float* queries, float* keys) {
  kernels::QkNormRope({.q = queries,
                       .k = keys,
                       .q_stride = spec_.num_heads * spec_.head_dim,
                       .k_stride = spec_.head_dim,
                       .num_rows = batch.num_rows,
                       .num_heads = queries == nullptr ? 0 : spec_.num_heads,
                       .num_kv_heads = keys == nullptr ? 0u : 1u,
                       .head_dim = spec_.head_dim,
                       .positions = batch.positions,
                       .cos = inputs_.rope.cos,
                       .sin = inputs_.rope.sin,
                       .rotary_dim = rope_.rotary_dim,
                       .interleaved = false},
                      *inputs_.stream);
}

}  // namespace essor::worker
