#include "worker/layers/grouped_query_attention_layer.h"

#include <array>

#include "common/check.h"
#include "common/status_macros.h"
#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "kernels/linear.h"

namespace essor::worker {
namespace {

// Keys first, values behind them.
kernels::PagedKv CacheOf(const LayerCache& cache, uint32_t num_kv_heads, uint32_t head_dim) {
  kernels::PagedKv paged{.k = cache.data,
                         .v = nullptr,
                         .type = cache.type,
                         .num_blocks = cache.num_blocks,
                         .block_tokens = cache.block_tokens,
                         .num_kv_heads = num_kv_heads,
                         .head_dim = head_dim};
  paged.v = cache.data + paged.num_blocks * paged.block_bytes();
  return paged;
}

}  // namespace

GroupedQueryAttentionLayer::GroupedQueryAttentionLayer(const model::GroupedQueryAttention& spec,
                                                       const LayerInputs& inputs)
    : spec_(spec),
      inputs_(inputs),
      hidden_(inputs.spec->hidden_size),
      num_heads_(static_cast<uint32_t>(inputs.layout->per_layer[inputs.index].heads.size())),
      num_kv_heads_(static_cast<uint32_t>(inputs.layout->per_layer[inputs.index].kv_heads.size())),
      query_head_stride_(spec.output_gate ? 2 * spec.head_dim : spec.head_dim),
      cache_(CacheOf(inputs.cache, num_kv_heads_, spec.head_dim)),
      full_width_norm_(static_cast<float>(inputs.spec->norm_eps), inputs.scratch.norm_squares,
                       inputs.groups.tp, inputs.stream) {
  // No family has both; the norm takes the heads' queries for consecutive.
  ESSOR_CHECK(!spec.output_gate || spec.qk_norm != model::QkNorm::kFullWidth);
}

absl::Status GroupedQueryAttentionLayer::Forward(const Batch& batch, const float* x, float* y) {
  Project(batch, x);
  if (spec_.qk_norm == model::QkNorm::kFullWidth) ESSOR_RETURN_IF_ERROR(NormFullWidth(batch));
  NormAndRotate(batch);
  Attend(batch);
  return ProjectOutput(inputs_, batch, num_heads_ * spec_.head_dim, y);
}

KeptPieces GroupedQueryAttentionLayer::Kept() const {
  const uint64_t bytes = cache_.block_bytes();
  return {.of_block = {{.data = static_cast<std::byte*>(cache_.k), .bytes = bytes},
                       {.data = static_cast<std::byte*>(cache_.v), .bytes = bytes}},
          .of_sequence = {}};
}

void GroupedQueryAttentionLayer::Attend(const Batch& batch) {
  const LayerScratch& scratch = inputs_.scratch;
  const auto sequences = inputs_.cache.window ? batch.window_sequences : batch.sequences;
  const uint32_t key_width = num_kv_heads_ * spec_.head_dim;
  kernels::WriteKv({.cache = cache_,
                    .k = scratch.key,
                    .v = scratch.value,
                    .k_stride = key_width,
                    .v_stride = key_width,
                    .sequences = sequences},
                   *inputs_.stream);
  kernels::Attention({.cache = cache_,
                      .q = scratch.query,
                      .q_stride = num_heads_ * query_head_stride_,
                      .q_head_stride = query_head_stride_,
                      .num_heads = num_heads_,
                      .scale = static_cast<float>(spec_.softmax_scale),
                      .sliding_window = spec_.sliding_window,
                      .chunk_size = spec_.chunk_size,
                      .sinks = inputs_.weights->sinks,
                      .sequences = sequences,
                      .y = scratch.attention},
                     *inputs_.stream);
  if (!spec_.output_gate) return;
  kernels::GateHeads({.y = scratch.attention,
                      .gate = scratch.query + spec_.head_dim,
                      .gate_stride = num_heads_ * query_head_stride_,
                      .gate_head_stride = query_head_stride_,
                      .num_rows = batch.num_rows,
                      .num_heads = num_heads_,
                      .head_dim = spec_.head_dim,
                      .kind = kernels::Gate::kSigmoid},
                     *inputs_.stream);
}

void GroupedQueryAttentionLayer::Project(const Batch& batch, const float* x) {
  const LayerWeights& weights = *inputs_.weights;
  const uint32_t key_width = num_kv_heads_ * spec_.head_dim;
  const std::array<kernels::LinearOutput, 3> outputs{{
      {.weight = weights.query,
       .bias = weights.query_bias,
       .y = inputs_.scratch.query,
       .y_stride = num_heads_ * query_head_stride_},
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

absl::Status GroupedQueryAttentionLayer::NormFullWidth(const Batch& batch) {
  const model::RankLayout::Layer& layer = inputs_.layout->per_layer[inputs_.index];
  // Of ranks that share a KV head, the one with the first of its query heads.
  const uint64_t group = spec_.num_heads / spec_.num_kv_heads;
  const bool counts_key = layer.heads.begin == layer.kv_heads.begin * group;
  const uint32_t query_width = num_heads_ * spec_.head_dim;
  const uint32_t key_width = num_kv_heads_ * spec_.head_dim;
  const std::array<SpreadColumns, 2> norms{{
      {.x = inputs_.scratch.query,
       .stride = query_width,
       .width = query_width,
       .weight = inputs_.weights->query_norm,
       .total_width = spec_.num_heads * spec_.head_dim},
      {.x = inputs_.scratch.key,
       .stride = key_width,
       .width = key_width,
       .weight = inputs_.weights->key_norm,
       .total_width = spec_.num_kv_heads * spec_.head_dim,
       .counts = counts_key},
  }};
  return full_width_norm_.Apply(batch.num_rows, norms);
}

void GroupedQueryAttentionLayer::NormAndRotate(const Batch& batch) {
  const bool per_head = spec_.qk_norm == model::QkNorm::kPerHead;
  const auto temperature = spec_.temperature.value_or(model::GroupedQueryAttention::Temperature{});
  kernels::QkNormRope(
      {.q = inputs_.scratch.query,
       .k = inputs_.scratch.key,
       .q_stride = num_heads_ * query_head_stride_,
       .k_stride = num_kv_heads_ * spec_.head_dim,
       .q_head_stride = query_head_stride_,
       .num_rows = batch.num_rows,
       .num_heads = num_heads_,
       .num_kv_heads = num_kv_heads_,
       .head_dim = spec_.head_dim,
       .q_norm = per_head ? inputs_.weights->query_norm : nullptr,
       .k_norm = per_head ? inputs_.weights->key_norm : nullptr,
       .norm_eps = static_cast<float>(inputs_.spec->norm_eps),
       .positions = batch.positions,
       .cos = inputs_.rope.cos,
       .sin = inputs_.rope.sin,
       .rotary_dim = spec_.rope.rotary_dim,
       .interleaved = spec_.rope.interleaved,
       .unit_norm_after = spec_.qk_norm == model::QkNorm::kUnitAfterRope,
       .temperature = {.scale = temperature.scale, .floor_positions = temperature.floor_positions}},
      *inputs_.stream);
}

}  // namespace essor::worker
