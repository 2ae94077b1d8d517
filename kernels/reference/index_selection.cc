#include "kernels/reference/index_selection.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "kernels/reference/cache_element.h"

namespace essor::kernels::reference {
namespace {

// Number of a position's token in the cache.
size_t SlotOf(const PagedIndexKeys& cache, const uint32_t* block_table, uint32_t position) {
  const size_t block = block_table[position / cache.block_tokens];
  return block * cache.block_tokens + position % cache.block_tokens;
}

CacheVector KeyAt(const PagedIndexKeys& cache, size_t slot) {
  return {
      .elements = static_cast<std::byte*>(cache.data) + slot * cache.dim * ElementBytes(cache.type),
      .stride = 1,
      .type = cache.type};
}

double Score(const SelectPositionsParams& params, size_t row, size_t slot) {
  const uint32_t dim = params.cache.dim;
  const CacheVector key = KeyAt(params.cache, slot);
  double score = 0;
  for (uint32_t h = 0; h < params.num_heads; ++h) {
    const size_t head = row * params.num_heads + h;
    double dot = 0;
    for (uint32_t d = 0; d < dim; ++d) dot += params.q[head * dim + d] * LoadElement(key, d);
    score += params.weights[head] * std::max(dot, 0.0);
  }
  return std::isnan(score) ? -std::numeric_limits<double>::infinity() : score;
}

void SelectOfRow(const SelectPositionsParams& params, const SequenceRows& sequence, uint32_t i) {
  const size_t row = sequence.first_row + i;
  std::vector<double> scores;
  std::vector<uint32_t> positions;
  for (uint32_t position = 0; position <= sequence.context_tokens + i; ++position) {
    scores.push_back(Score(params, row, SlotOf(params.cache, sequence.block_table, position)));
    positions.push_back(position);
  }
  std::stable_sort(positions.begin(), positions.end(),
                   [&](uint32_t a, uint32_t b) { return scores[a] > scores[b]; });
  std::sort(positions.begin(), positions.begin() + params.top_k);
  for (uint32_t k = 0; k < params.top_k; ++k) {
    params.slots[row * params.top_k + k] =
        static_cast<uint32_t>(SlotOf(params.cache, sequence.block_table, positions[k]));
  }
}

}  // namespace

void WriteIndexKeys(const WriteIndexKeysParams& params) {
  const PagedIndexKeys& cache = params.cache;
  for (const SequenceRows& sequence : params.sequences) {
    for (uint32_t i = 0; i < sequence.num_rows; ++i) {
      const size_t row = sequence.first_row + i;
      const size_t slot = SlotOf(cache, sequence.block_table, sequence.context_tokens + i);
      StoreVector(KeyAt(cache, slot), params.keys + row * cache.dim, cache.dim);
    }
  }
}

void SelectPositions(const SelectPositionsParams& params) {
  for (const SequenceRows& sequence : params.sequences) {
    for (uint32_t i = 0; i < sequence.num_rows; ++i) {
      if (sequence.context_tokens + i + 1 > params.top_k) SelectOfRow(params, sequence, i);
    }
  }
}

}  // namespace essor::kernels::reference
