#include "kernels/reference/linear_attention.h"

#include <algorithm>
#include <cstddef>
#include <vector>

namespace essor::kernels::reference {
namespace {

const float* At(const HeadsView& view, size_t row, uint32_t head) {
  return view.data + row * view.row_stride + size_t{head} * view.head_stride;
}

// S^T x.
std::vector<double> Read(const float* state, const float* x, uint32_t key_dim, uint32_t value_dim) {
  std::vector<double> result(value_dim, 0.0);
  for (uint32_t i = 0; i < key_dim; ++i) {
    for (uint32_t j = 0; j < value_dim; ++j) {
      result[j] += static_cast<double>(state[size_t{i} * value_dim + j]) * x[i];
    }
  }
  return result;
}

void Step(const LinearAttentionParams& params, size_t row, uint32_t head, float* state) {
  const uint32_t key_head = head / (params.num_heads / params.num_key_heads);
  const float* k = At(params.k, row, key_head);
  const float* v = At(params.v, row, head);
  const size_t gate = row * params.decay_stride + head;
  const double decay = params.decays[gate];
  std::vector<double> written(v, v + params.value_dim);
  if (params.write_gates != nullptr) {
    const std::vector<double> known = Read(state, k, params.key_dim, params.value_dim);
    for (uint32_t j = 0; j < params.value_dim; ++j) {
      written[j] = (written[j] - decay * known[j]) * params.write_gates[gate];
    }
  }
  for (uint32_t i = 0; i < params.key_dim; ++i) {
    for (uint32_t j = 0; j < params.value_dim; ++j) {
      float& element = state[size_t{i} * params.value_dim + j];
      element = static_cast<float>(decay * element + k[i] * written[j]);
    }
  }
  const std::vector<double> result =
      Read(state, At(params.q, row, key_head), params.key_dim, params.value_dim);
  std::transform(result.begin(), result.end(),
                 params.y + (row * params.num_heads + head) * params.value_dim,
                 [](double x) { return static_cast<float>(x); });
}

}  // namespace

void LinearAttention(const LinearAttentionParams& params) {
  const size_t state_floats = size_t{params.key_dim} * params.value_dim;
  for (const SequenceRows& sequence : params.sequences) {
    for (uint32_t head = 0; head < params.num_heads; ++head) {
      float* state =
          params.states + (size_t{sequence.slot} * params.num_heads + head) * state_floats;
      if (sequence.context_tokens == 0) std::fill_n(state, state_floats, 0.0f);
      for (uint32_t i = 0; i < sequence.num_rows; ++i) {
        Step(params, sequence.first_row + i, head, state);
      }
    }
  }
}

}  // namespace essor::kernels::reference
