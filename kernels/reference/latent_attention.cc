#include "kernels/reference/latent_attention.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "kernels/reference/cache_element.h"

namespace essor::kernels::reference {
namespace {

// A position's latent and its rotated key.
struct Row {
  CacheVector latent;
  CacheVector rope;
};

Row RowAt(const PagedLatents& cache, const uint32_t* block_table, uint32_t position) {
  const size_t block = block_table[position / cache.block_tokens];
  std::byte* const row =
      static_cast<std::byte*>(cache.data) +
      (block * cache.block_tokens + position % cache.block_tokens) * cache.row_bytes();
  const KvType rope_type = UnquantisedType(cache.type);
  const size_t latent_bytes = size_t{cache.latent_dim} * ElementBytes(cache.type);
  const size_t rope_bytes = size_t{cache.rope_dim} * ElementBytes(rope_type);
  const bool rope_first = IsQuantised(cache.type);
  std::byte* const begin = row + ScaleBytes(cache.type);
  return {
      .latent = {.elements = rope_first ? begin + rope_bytes : begin,
                 .stride = 1,
                 .type = cache.type,
                 .scale = row},
      .rope = {
          .elements = rope_first ? begin : begin + latent_bytes, .stride = 1, .type = rope_type}};
}

// One head of one row over the positions 0 .. last.
struct Query {
  const PagedLatents& cache;
  const uint32_t* block_table;
  uint32_t last;
  const float* latent;  // [L]
  const float* rope;    // [R]
  float scale;
};

double Score(const Query& query, uint32_t position) {
  const PagedLatents& cache = query.cache;
  const Row row = RowAt(cache, query.block_table, position);
  double score = 0;
  for (uint32_t d = 0; d < cache.latent_dim; ++d) {
    score += query.latent[d] * LoadElement(row.latent, d);
  }
  for (uint32_t d = 0; d < cache.rope_dim; ++d) score += query.rope[d] * LoadElement(row.rope, d);
  return score * query.scale;
}

void AttendHead(const Query& query, float* y) {
  const PagedLatents& cache = query.cache;
  std::vector<double> weights;
  double max = -std::numeric_limits<double>::infinity();
  for (uint32_t position = 0; position <= query.last; ++position) {
    weights.push_back(Score(query, position));
    max = std::max(max, weights.back());
  }
  double sum = 0;
  for (double& weight : weights) {
    weight = std::exp(weight - max);
    sum += weight;
  }
  std::vector<double> result(cache.latent_dim, 0.0);
  for (uint32_t position = 0; position <= query.last; ++position) {
    const Row row = RowAt(cache, query.block_table, position);
    for (uint32_t d = 0; d < cache.latent_dim; ++d) {
      result[d] += weights[position] / sum * LoadElement(row.latent, d);
    }
  }
  for (uint32_t d = 0; d < cache.latent_dim; ++d) y[d] = static_cast<float>(result[d]);
}

}  // namespace

void WriteLatents(const WriteLatentsParams& params) {
  const PagedLatents& cache = params.cache;
  for (const SequenceRows& sequence : params.sequences) {
    for (uint32_t i = 0; i < sequence.num_rows; ++i) {
      const size_t row = sequence.first_row + i;
      const Row to = RowAt(cache, sequence.block_table, sequence.context_tokens + i);
      StoreVector(to.latent, params.latents + row * cache.latent_dim, cache.latent_dim);
      StoreVector(to.rope, params.rope_keys + row * cache.rope_dim, cache.rope_dim);
    }
  }
}

void LatentAttention(const LatentAttentionParams& params) {
  const size_t latent_dim = params.cache.latent_dim;
  for (const SequenceRows& sequence : params.sequences) {
    for (uint32_t i = 0; i < sequence.num_rows; ++i) {
      const size_t row = sequence.first_row + i;
      for (uint32_t h = 0; h < params.num_heads; ++h) {
        const size_t head = row * params.num_heads + h;
        AttendHead({.cache = params.cache,
                    .block_table = sequence.block_table,
                    .last = sequence.context_tokens + i,
                    .latent = params.q_latent + head * latent_dim,
                    .rope = params.q_rope + row * params.q_rope_row_stride +
                            size_t{h} * params.q_rope_head_stride,
                    .scale = params.scale},
                   params.y + head * latent_dim);
      }
    }
  }
}

}  // namespace essor::kernels::reference
