#include "model/plan/attention_shape.h"

#include <algorithm>
#include <variant>

namespace essor::model {
namespace {

uint32_t OutputHeadDimOf(const GroupedQueryAttention& attention) { return attention.head_dim; }
uint32_t OutputHeadDimOf(const LatentAttention& attention) { return attention.value_head_dim; }
uint32_t OutputHeadDimOf(const LightningAttention& attention) { return attention.head_dim; }
uint32_t OutputHeadDimOf(const GatedDeltaNet& attention) { return attention.value_head_dim; }

AttentionWidths WidthsOf(const GroupedQueryAttention& attention, const RankLayout::Layer& layer) {
  const uint64_t query = layer.heads.size() * attention.head_dim;
  const uint64_t key = layer.kv_heads.size() * attention.head_dim;
  return {.query = attention.output_gate ? 2 * query : query,
          .key = key,
          .value = key,
          .result = query,
          .norm_squares = attention.qk_norm == QkNorm::kFullWidth ? 2u : 0u};
}

AttentionWidths WidthsOf(const LatentAttention& attention, const RankLayout::Layer& layer) {
  const uint64_t heads = layer.heads.size();
  const SparseIndexer indexer = attention.indexer.value_or(SparseIndexer());
  // The heads' values take the place of their queries, which are no longer needed by then.
  return {.query = heads * std::max(attention.query_head_dim(), attention.value_head_dim),
          .latent_query = heads * attention.kv_lora_rank,
          .query_latent = attention.q_lora_rank,
          .key = attention.kv_lora_rank,
          .value = attention.rope_head_dim,
          .result = heads * attention.kv_lora_rank,
          .index_query = uint64_t{indexer.num_heads} * indexer.head_dim,
          .index_key = indexer.head_dim,
          .index_weights = indexer.num_heads,
          .index_slots = indexer.top_k};
}

AttentionWidths WidthsOf(const LightningAttention& attention, const RankLayout::Layer& layer) {
  const uint64_t width = layer.heads.size() * attention.head_dim;
  return {.query = 3 * width, .key = width, .result = width, .norm_squares = 1};
}

AttentionHeads HeadsOf(const GroupedQueryAttention& attention, const RankLayout::Layer& layer) {
  return {.kv_heads = layer.kv_heads.size(),
          .group = layer.heads.size() / layer.kv_heads.size(),
          .key_dim = attention.head_dim,
          .value_dim = attention.head_dim,
          .sliding_window = attention.sliding_window,
          .chunk_size = attention.chunk_size};
}

AttentionHeads HeadsOf(const LatentAttention& attention, const RankLayout::Layer& layer) {
  const SparseIndexer indexer = attention.indexer.value_or(SparseIndexer());
  return {.kv_heads = 1,
          .group = layer.heads.size(),
          .key_dim = attention.cached_dim(),
          .value_dim = attention.kv_lora_rank,
          .sliding_window = 0,
          .chunk_size = 0,
          .index_heads = indexer.num_heads,
          .index_dim = indexer.head_dim,
          .chosen = indexer.top_k};
}

// Channels that a rank's convolution goes over: queries, keys and values.
uint64_t ConvolutionWidth(const GatedDeltaNet& attention, const RankLayout::Layer& layer) {
  const uint64_t heads = layer.heads.size();
  return 2 * heads / attention.values_per_key() * attention.key_head_dim +
         heads * attention.value_head_dim;
}

AttentionWidths WidthsOf(const GatedDeltaNet& attention, const RankLayout::Layer& layer) {
  const uint64_t heads = layer.heads.size();
  return {.query = heads / attention.values_per_key() * attention.group_rows(),
          .key = ConvolutionWidth(attention, layer),
          .value = 4 * heads,
          .result = heads * attention.value_head_dim};
}

AttentionHeads HeadsOf(const GatedDeltaNet&, const RankLayout::Layer&) { return {}; }
AttentionHeads HeadsOf(const LightningAttention&, const RankLayout::Layer&) { return {}; }

KvTokenBytes KvBytesOf(const GroupedQueryAttention& attention, const RankLayout::Layer& layer,
                       KvType type) {
  const uint64_t bytes = layer.kv_heads.size() * KvVectorBytes(type, attention.head_dim);
  return {.first = bytes, .second = bytes};
}
KvTokenBytes KvBytesOf(const LatentAttention& attention, const RankLayout::Layer&, KvType type) {
  const uint32_t index_dim = attention.indexer ? attention.indexer->head_dim : 0;
  return {.first = LatentRowBytes(type, attention.kv_lora_rank, attention.rope_head_dim),
          .second = KvVectorBytes(UnquantisedType(type), index_dim)};
}
KvTokenBytes KvBytesOf(const LightningAttention&, const RankLayout::Layer&, KvType) { return {}; }
KvTokenBytes KvBytesOf(const GatedDeltaNet&, const RankLayout::Layer&, KvType) { return {}; }

uint64_t StateFloatsOf(const GroupedQueryAttention&, const RankLayout::Layer&) { return 0; }
uint64_t StateFloatsOf(const LatentAttention&, const RankLayout::Layer&) { return 0; }
uint64_t StateFloatsOf(const LightningAttention& attention, const RankLayout::Layer& layer) {
  return layer.heads.size() * attention.head_dim * attention.head_dim;
}
// The inputs of the last tokens are kept for the convolution too.
uint64_t StateFloatsOf(const GatedDeltaNet& attention, const RankLayout::Layer& layer) {
  return layer.heads.size() * attention.key_head_dim * attention.value_head_dim +
         (attention.conv_taps - 1) * ConvolutionWidth(attention, layer);
}

}  // namespace

uint32_t OutputHeadDim(const AttentionSpec& attention) {
  return std::visit([](const auto& kind) { return OutputHeadDimOf(kind); }, attention);
}

KvTokenBytes KvTokenBytesOf(const AttentionSpec& attention, const RankLayout::Layer& layer,
                            KvType type) {
  return std::visit([&](const auto& kind) { return KvBytesOf(kind, layer, type); }, attention);
}

uint64_t StateFloatsPerSequence(const AttentionSpec& attention, const RankLayout::Layer& layer) {
  return std::visit([&](const auto& kind) { return StateFloatsOf(kind, layer); }, attention);
}

AttentionWidths AttentionWidthsOf(const AttentionSpec& attention, const RankLayout::Layer& layer) {
  return std::visit([&](const auto& kind) { return WidthsOf(kind, layer); }, attention);
}

AttentionWidths Widest(const AttentionWidths& a, const AttentionWidths& b) {
  return {.query = std::max(a.query, b.query),
          .latent_query = std::max(a.latent_query, b.latent_query),
          .query_latent = std::max(a.query_latent, b.query_latent),
          .key = std::max(a.key, b.key),
          .value = std::max(a.value, b.value),
          .result = std::max(a.result, b.result),
          .norm_squares = std::max(a.norm_squares, b.norm_squares),
          .index_query = std::max(a.index_query, b.index_query),
          .index_key = std::max(a.index_key, b.index_key),
          .index_weights = std::max(a.index_weights, b.index_weights),
          .index_slots = std::max(a.index_slots, b.index_slots)};
}

AttentionHeads AttentionHeadsOf(const AttentionSpec& attention, const RankLayout::Layer& layer) {
  return std::visit([&](const auto& kind) { return HeadsOf(kind, layer); }, attention);
}

}  // namespace essor::model
