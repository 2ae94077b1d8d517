#include "worker/layers/grouped_query_attention_layer.h"

#include <array>

#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "kernels/linear.h"

namespace essor::worker {
namespace {

// Keys first, values behind them.
kernels::PagedKv CacheOf(const LayerCache& cache, uint32_t num_kv_heads, uint32_t head_dim) {
  const uint64_t elements =
      uint64_t{cache.num_blocks} * num_kv_heads * cache.block_tokens * head_dim;
  return {.k = cache.data,
          .v = cache.data + elements * (cache.fp32 ? 4 : 2),
          .fp32 = cache.fp32,
          .num_blocks = cache.num_blocks,
          .block_tokens = cache.block_tokens,
          .num_kv_heads = num_kv_heads,
          .head_dim = head_dim};
}

}  // namespace

GroupedQueryAttentionLayer::GroupedQueryAttentionLayer(const model::GroupedQueryAttention& spec,
                                                       const LayerInputs& inputs)
    : spec_(spec),
      inputs_(inputs),
      hidden_(inputs.spec->hidden_size),
      num_heads_(static_cast<uint32_t>(inputs.layout->per_layer[inputs.index].heads.size())),
      num_kv_heads_(static_cast<uint32_t>(inputs.layout->per_layer[inputs.index].kv_heads.size())),
      cache_(CacheOf(inputs.cache, num_kv_heads_, spec.head_dim)) {}

absl::Status GroupedQueryAttentionLayer::Forward(const Batch& batch, const float* x, float* y) {
  const LayerScratch& scratch = inputs_.scratch;
  const uint32_t query_width = num_heads_ * spec_.head_dim;
  const uint32_t key_width = num_kv_heads_ * spec_.head_dim;
  Project(batch, x);
  NormAndRotate(batch);
  kernels::WriteKv({.cache = cache_,
                    .k = scratch.key,
                    .v = scratch.value,
                    .k_stride = key_width,
                    .v_stride = key_width,
                    .sequences = batch.sequences},
                   *inputs_.stream);
  kernels::Attention({.cache = cache_,
                      .q = scratch.query,
                      .q_stride = query_width,
                      .num_heads = num_heads_,
                      .scale = static_cast<float>(spec_.softmax_scale),
                      .sliding_window = spec_.sliding_window,
                      .sinks = inputs_.weights->sinks,
                      .sequences = batch.sequences,
                      .y = scratch.attention},
                     *inputs_.stream);
  // One member of the group adds the bias, so that the sum has it once.
  const bool adds_bias = inputs_.layout->tp_index == 0;
  const kernels::LinearOutput output{.weight = inputs_.weights->output,
                                     .bias = adds_bias ? inputs_.weights->output_bias : nullptr,
                                     .y = y,
                                     .y_stride = hidden_};
  kernels::Linear({.x = scratch.attention,
                   .x_stride = query_width,
                   .num_rows = batch.num_rows,
                   .outputs = {&output, 1}},
                  *inputs_.stream);
  return inputs_.groups.tp->AllReduceSum({y, static_cast<size_t>(batch.num_rows) * hidden_});
}

void GroupedQueryAttentionLayer::Project(const Batch& batch, const float* x) {
  const LayerWeights& weights = *inputs_.weights;
  const uint32_t query_width = num_heads_ * spec_.head_dim;
  const uint32_t key_width = num_kv_heads_ * spec_.head_dim;
  const std::array<kernels::LinearOutput, 3> outputs{{
      {.weight = weights.query,
       .bias = weights.query_bias,
       .y = inputs_.scratch.query,
       .y_stride = query_width},
      {.weight = weights.key,
       .bias = weights.key_bias,
       .y = inputs_.scratch.key,
       .y_stride = key_width},
      {.weight = weights.value,
       .bias = weights.value_bias,
       .y = inputs_.scratch.value,
       .y_stride = key_width},
  }};
  kernels::Linear({.x = x, .x_stride = hidden_, .num_rows = batch.num_rows, .outputs = outputs},
                  *inputs_.stream);
}

void GroupedQueryAttentionLayer::NormAndRotate(const Batch& batch) {
  kernels::QkNormRope({.q = inputs_.scratch.query,
                       .k = inputs_.scratch.key,
                       .q_stride = num_heads_ * spec_.head_dim,
                       .k_stride = num_kv_heads_ * spec_.head_dim,
                       .num_rows = batch.num_rows,
                       .num_heads = num_heads_,
                       .num_kv_heads = num_kv_heads_,
                       .head_dim = spec_.head_dim,
                       .q_norm = inputs_.weights->query_norm,
                       .k_norm = inputs_.weights->key_norm,
                       .norm_eps = static_cast<float>(inputs_.spec->norm_eps),
                       .positions = batch.positions,
                       .cos = inputs_.rope.cos,
                       .sin = inputs_.rope.sin,
                       .rotary_dim = spec_.rope.rotary_dim,
                       .interleaved = spec_.rope.interleaved},
                      *inputs_.stream);
}

}  // namespace essor::worker
