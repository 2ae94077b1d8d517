#include "worker/layers/latent_attention_layer.h"

#include <array>

#include "kernels/elementwise.h"
#include "kernels/linear.h"

namespace essor::worker {

LatentAttentionLayer::LatentAttentionLayer(const model::LatentAttention& spec,
                                           const LayerInputs& inputs)
    : spec_(spec),
      inputs_(inputs),
      hidden_(inputs.spec->hidden_size),
      num_heads_(static_cast<uint32_t>(inputs.layout->per_layer[inputs.index].heads.size())),
      cache_({.data = inputs.cache.data,
              .type = inputs.cache.type,
              .num_blocks = inputs.cache.num_blocks,
              .block_tokens = inputs.cache.block_tokens,
              .latent_dim = spec.kv_lora_rank,
              .rope_dim = spec.rope_head_dim}) {
  if (!spec.indexer) return;
  selector_.emplace(spec, inputs, inputs.cache.data + cache_.num_blocks * cache_.block_bytes());
}

absl::Status LatentAttentionLayer::Forward(const Batch& batch, const float* x, float* y) {
  const LayerScratch& scratch = inputs_.scratch;
  ProjectQueries(batch, x);
  ProjectLatents(batch, x);
  Rotate(batch);
  kernels::WriteLatents({.cache = cache_,
                         .latents = scratch.key,
                         .rope_keys = scratch.value,
                         .sequences = batch.sequences},
                        *inputs_.stream);
  AbsorbKeys(batch);
  if (selector_) {
    selector_->Choose(batch, x, scratch.query_latent);
    Attend(cache_, selector_->whole());
    Attend(kernels::AsSingleTokens(cache_), selector_->chosen());
  } else {
    Attend(cache_, batch.sequences);
  }
  ExpandValues(batch);
  ProjectOutput(batch, y);
  return inputs_.groups.tp->AllReduceSum({y, static_cast<size_t>(batch.num_rows) * hidden_});
}

KeptPieces LatentAttentionLayer::Kept() const {
  KeptPieces kept;
  kept.of_block.push_back(
      {.data = static_cast<std::byte*>(cache_.data), .bytes = cache_.block_bytes()});
  if (selector_) kept.of_block.push_back(selector_->KeptOfBlock());
  return kept;
}

void LatentAttentionLayer::Attend(const kernels::PagedLatents& cache,
                                  std::span<const kernels::SequenceRows> sequences) {
  kernels::LatentAttention({.cache = cache,
                            .q_latent = inputs_.scratch.latent_query,
                            .q_rope = inputs_.scratch.query + spec_.nope_head_dim,
                            .q_rope_row_stride = num_heads_ * spec_.query_head_dim(),
                            .q_rope_head_stride = spec_.query_head_dim(),
                            .num_heads = num_heads_,
                            .scale = static_cast<float>(spec_.softmax_scale),
                            .sequences = sequences,
                            .y = inputs_.scratch.attention},
                           *inputs_.stream);
}

void LatentAttentionLayer::Multiply(const Batch& batch, const float* x, uint32_t x_stride,
                                    const kernels::LinearOutput& output) {
  kernels::Linear(
      {.x = x, .x_stride = x_stride, .num_rows = batch.num_rows, .outputs = {&output, 1}},
      *inputs_.stream);
}

void LatentAttentionLayer::ProjectQueries(const Batch& batch, const float* x) {
  const LayerWeights& weights = *inputs_.weights;
  const kernels::LinearOutput query{.weight = weights.query,
                                    .y = inputs_.scratch.query,
                                    .y_stride = num_heads_ * spec_.query_head_dim()};
  if (spec_.q_lora_rank == 0) return Multiply(batch, x, hidden_, query);
  float* latent = inputs_.scratch.query_latent;
  Multiply(batch, x, hidden_,
           {.weight = weights.latent.query_down, .y = latent, .y_stride = spec_.q_lora_rank});
  kernels::RmsNorm({.x = latent,
                    .weight = weights.latent.query_down_norm,
                    .y = latent,
                    .num_rows = batch.num_rows,
                    .width = spec_.q_lora_rank,
                    .eps = static_cast<float>(spec_.latent_norm_eps)},
                   *inputs_.stream);
  Multiply(batch, latent, spec_.q_lora_rank, query);
}

void LatentAttentionLayer::ProjectLatents(const Batch& batch, const float* x) {
  const LatentWeights& weights = inputs_.weights->latent;
  float* latents = inputs_.scratch.key;
  const std::array<kernels::LinearOutput, 2> outputs{{
      {.weight = weights.latent_down, .y = latents, .y_stride = spec_.kv_lora_rank},
      {.weight = weights.rope_key, .y = inputs_.scratch.value, .y_stride = spec_.rope_head_dim},
  }};
  kernels::Linear({.x = x, .x_stride = hidden_, .num_rows = batch.num_rows, .outputs = outputs},
                  *inputs_.stream);
  kernels::RmsNorm({.x = latents,
                    .weight = weights.latent_norm,
                    .y = latents,
                    .num_rows = batch.num_rows,
                    .width = spec_.kv_lora_rank,
                    .eps = static_cast<float>(spec_.latent_norm_eps)},
                   *inputs_.stream);
}

void LatentAttentionLayer::Rotate(const Batch& batch) {
  kernels::QkNormRope({.q = inputs_.scratch.query + spec_.nope_head_dim,
                       .k = inputs_.scratch.value,
                       .q_stride = num_heads_ * spec_.query_head_dim(),
                       .k_stride = spec_.rope_head_dim,
                       .num_rows = batch.num_rows,
                       .num_heads = num_heads_,
                       .num_kv_heads = 1,
                       .head_dim = spec_.query_head_dim(),
                       .positions = batch.positions,
                       .cos = inputs_.rope.cos,
                       .sin = inputs_.rope.sin,
                       .rotary_dim = spec_.rope.rotary_dim,
                       .interleaved = spec_.rope.interleaved},
                      *inputs_.stream);
}

void LatentAttentionLayer::AbsorbKeys(const Batch& batch) {
  for (uint32_t head = 0; head < num_heads_; ++head) {
    Multiply(batch, inputs_.scratch.query + size_t{head} * spec_.query_head_dim(),
             num_heads_ * spec_.query_head_dim(),
             {.weight = inputs_.weights->latent.key_up[head],
              .y = inputs_.scratch.latent_query + size_t{head} * spec_.kv_lora_rank,
              .y_stride = num_heads_ * spec_.kv_lora_rank});
  }
}

void LatentAttentionLayer::ExpandValues(const Batch& batch) {
  for (uint32_t head = 0; head < num_heads_; ++head) {
    Multiply(batch, inputs_.scratch.attention + size_t{head} * spec_.kv_lora_rank,
             num_heads_ * spec_.kv_lora_rank,
             {.weight = inputs_.weights->latent.value_up[head],
              .y = inputs_.scratch.query + size_t{head} * spec_.value_head_dim,
              .y_stride = num_heads_ * spec_.value_head_dim});
  }
}

void LatentAttentionLayer::ProjectOutput(const Batch& batch, float* y) {
  Multiply(batch, inputs_.scratch.query, num_heads_ * spec_.value_head_dim,
           {.weight = inputs_.weights->output, .y = y, .y_stride = hidden_});
}

}  // namespace essor::worker
