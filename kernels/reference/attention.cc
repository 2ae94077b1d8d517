#include "kernels/reference/attention.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "kernels/reference/cache_element.h"

namespace essor::kernels::reference {
namespace {

// A token and KV head of a sequence.
struct Place {
  const PagedKv& cache;
  const uint32_t* block_table;
  uint32_t position;
  uint32_t kv_head;

  uint32_t slot() const { return position % cache.block_tokens; }
  // Of the scales in a block.
  size_t index() const { return size_t{kv_head} * cache.block_tokens + slot(); }
};

// Its key or value, whose first element is the block's element `first`.
CacheVector VectorAt(const Place& place, void* blocks, size_t first, size_t stride) {
  const PagedKv& cache = place.cache;
  const size_t block = place.block_table[place.position / cache.block_tokens];
  std::byte* const begin = static_cast<std::byte*>(blocks) + block * cache.block_bytes();
  const size_t scales = size_t{cache.num_kv_heads} * cache.block_tokens * cache.head_dim;
  return {.elements = begin + first * ElementBytes(cache.type),
          .stride = stride,
          .type = cache.type,
          .scale = begin + scales * ElementBytes(cache.type) + place.index() * sizeof(float)};
}

CacheVector KeyAt(const Place& place) {
  const PagedKv& cache = place.cache;
  const size_t head = size_t{place.kv_head} * cache.head_dim * cache.block_tokens;
  return VectorAt(place, cache.k, head + place.slot(), cache.block_tokens);
}

CacheVector ValueAt(const Place& place) {
  return VectorAt(place, place.cache.v, place.index() * place.cache.head_dim, 1);
}

// One query row of one head over the keys at positions [first, last].
struct Query {
  const PagedKv& cache;
  const uint32_t* block_table;
  uint32_t kv_head;
  uint32_t first;
  uint32_t last;
  const float* q;
  float scale;
  const float* sink;  // or null
};

void AttendRow(const Query& query, float* y) {
  const PagedKv& cache = query.cache;
  const uint32_t dim = cache.head_dim;
  std::vector<double> weights;
  double max = -std::numeric_limits<double>::infinity();
  for (uint32_t position = query.first; position <= query.last; ++position) {
    const CacheVector key = KeyAt({cache, query.block_table, position, query.kv_head});
    double score = 0;
    for (uint32_t d = 0; d < dim; ++d) score += query.q[d] * LoadElement(key, d);
    weights.push_back(score * query.scale);
    max = std::max(max, weights.back());
  }
  if (query.sink != nullptr) max = std::max(max, static_cast<double>(*query.sink));
  double sum = query.sink == nullptr ? 0 : std::exp(static_cast<double>(*query.sink) - max);
  for (double& weight : weights) {
    weight = std::exp(weight - max);
    sum += weight;
  }
  std::vector<double> result(dim, 0.0);
  for (uint32_t position = query.first; position <= query.last; ++position) {
    const CacheVector value = ValueAt({cache, query.block_table, position, query.kv_head});
    const double weight = weights[position - query.first] / sum;
    for (uint32_t d = 0; d < dim; ++d) result[d] += weight * LoadElement(value, d);
  }
  for (uint32_t d = 0; d < dim; ++d) y[d] = static_cast<float>(result[d]);
}

// The first position that the row at position `last` sees.
uint32_t FirstVisible(const AttentionParams& params, uint32_t last) {
  if (params.chunk_size != 0) return last - last % params.chunk_size;
  const bool windowed = params.sliding_window != 0 && last >= params.sliding_window;
  return windowed ? last + 1 - params.sliding_window : 0;
}

}  // namespace

void WriteKv(const WriteKvParams& params) {
  const PagedKv& cache = params.cache;
  for (const SequenceRows& sequence : params.sequences) {
    for (uint32_t i = 0; i < sequence.num_rows; ++i) {
      const size_t row = sequence.first_row + i;
      const uint32_t position = sequence.context_tokens + i;
      for (uint32_t h = 0; h < cache.num_kv_heads; ++h) {
        const Place place{cache, sequence.block_table, position, h};
        const size_t first = size_t{h} * cache.head_dim;
        StoreVector(KeyAt(place), params.k + row * params.k_stride + first, cache.head_dim);
        StoreVector(ValueAt(place), params.v + row * params.v_stride + first, cache.head_dim);
      }
    }
  }
}

void Attention(const AttentionParams& params) {
  const uint32_t dim = params.cache.head_dim;
  const size_t q_head_stride = params.q_head_stride == 0 ? dim : params.q_head_stride;
  const uint32_t group = params.num_heads / params.cache.num_kv_heads;
  for (const SequenceRows& sequence : params.sequences) {
    for (uint32_t i = 0; i < sequence.num_rows; ++i) {
      const size_t row = sequence.first_row + i;
      const uint32_t last = sequence.context_tokens + i;
      for (uint32_t h = 0; h < params.num_heads; ++h) {
        AttendRow({.cache = params.cache,
                   .block_table = sequence.block_table,
                   .kv_head = h / group,
                   .first = FirstVisible(params, last),
                   .last = last,
                   .q = params.q + row * params.q_stride + h * q_head_stride,
                   .scale = params.scale,
                   .sink = params.sinks == nullptr ? nullptr : params.sinks + h},
                  params.y + (row * params.num_heads + h) * dim);
      }
    }
  }
}

}  // namespace essor::kernels::reference
