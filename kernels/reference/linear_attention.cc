#include "kernels/reference/linear_attention.h"

#include <algorithm>
#include <cmath>
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

namespace {

// The input of channel (head, i) `back` tokens before row `row` of the sequence.
float InputBefore(const CausalConvolutionParams& params, const SequenceRows& sequence, uint32_t row,
                  uint32_t back, uint32_t head, uint32_t i) {
  if (back <= row) return At(params.x, size_t{sequence.first_row} + row - back, head)[i];
  if (back > sequence.context_tokens + row) return 0;
  const size_t kept = params.taps - 1 - (back - row);
  return params.states[(size_t{sequence.slot} * (params.taps - 1) + kept) * params.state_width +
                       size_t{head} * params.dim + i];
}

void ConvolveChannel(const CausalConvolutionParams& params, const SequenceRows& sequence,
                     uint32_t head, uint32_t i) {
  const size_t channel = size_t{head} * params.dim + i;
  const float* filter = params.filters + channel * params.taps;
  for (uint32_t row = 0; row < sequence.num_rows; ++row) {
    double sum = 0;
    for (uint32_t tap = 0; tap < params.taps; ++tap) {
      sum += static_cast<double>(filter[tap]) *
             InputBefore(params, sequence, row, params.taps - 1 - tap, head, i);
    }
    params.y[(size_t{sequence.first_row} + row) * params.y_stride + channel] =
        static_cast<float>(sum / (1 + std::exp(-sum)));
  }
  std::vector<float> kept;
  for (uint32_t back = params.taps - 1; back > 0; --back) {
    kept.push_back(InputBefore(params, sequence, sequence.num_rows, back, head, i));
  }
  for (size_t k = 0; k < kept.size(); ++k) {
    params.states[(size_t{sequence.slot} * kept.size() + k) * params.state_width + channel] =
        kept[k];
  }
}

}  // namespace

void CausalConvolution(const CausalConvolutionParams& params) {
  for (const SequenceRows& sequence : params.sequences) {
    for (uint32_t head = 0; head < params.num_heads; ++head) {
      for (uint32_t i = 0; i < params.dim; ++i) ConvolveChannel(params, sequence, head, i);
    }
  }
}

void DeltaGates(const DeltaGatesParams& params) {
  const uint32_t group = params.num_heads / params.num_key_heads;
  for (size_t row = 0; row < params.num_rows; ++row) {
    for (uint32_t head = 0; head < params.num_heads; ++head) {
      const float* b =
          params.gates + (row * params.num_heads + head / group * group) * 2 + head % group;
      const double a = static_cast<double>(b[group]) + params.biases[head];
      const double softplus = a > 0 ? a + std::log1p(std::exp(-a)) : std::log1p(std::exp(a));
      const size_t index = row * params.num_heads + head;
      params.decays[index] = static_cast<float>(
          std::exp(-std::exp(static_cast<double>(params.rates[head])) * softplus));
      params.write_gates[index] = static_cast<float>(1 / (1 + std::exp(-static_cast<double>(*b))));
    }
  }
}

}  // namespace essor::kernels::reference
