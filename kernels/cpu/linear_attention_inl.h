// The functions of LinearAttentionKernels for the ISA this is compiled for. To be included once, by
// one linear_attention_<isa>.cc each. Sums over key dims are taken in their order, one accumulator
// per column.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/linear_attention_kernels.h"
#include "kernels/cpu/simd_inl.h"

namespace essor::kernels {
namespace {  // NOLINT(google-build-namespaces): see simd_inl.h

// What one token brings to one head.
struct StateStep {
  const float* q;
  const float* k;
  const float* v;  // at the first of the columns
  float* y;        // likewise
  float decay;
  bool delta_rule;
  float write_gate;
};

// `Vectors` vectors of columns, the last one with `tail` lanes. `state` points to the first of the
// columns of key dim 0.
template <uint32_t Vectors>
ESSOR_INLINE void TakeStep(const StateStep& step, float* state, uint32_t key_dim,
                           uint32_t value_dim, uint32_t tail) {
  const auto lanes = [&](uint32_t n) { return n + 1 == Vectors ? tail : kLanes; };
  const F32 decay = Set1(step.decay);
  F32 written[Vectors];
  for (uint32_t n = 0; n < Vectors; ++n) written[n] = LoadPartial(step.v + n * kLanes, lanes(n));
  if (step.delta_rule) {
    F32 known[Vectors] = {};
    for (uint32_t i = 0; i < key_dim; ++i) {
      const float* row = state + size_t{i} * value_dim;
      const F32 k = Set1(step.k[i]);
      for (uint32_t n = 0; n < Vectors; ++n) {
        known[n] = Fma(LoadPartial(row + n * kLanes, lanes(n)), k, known[n]);
      }
    }
    const F32 gate = Set1(step.write_gate);
    for (uint32_t n = 0; n < Vectors; ++n) written[n] = (written[n] - decay * known[n]) * gate;
  }
  F32 result[Vectors] = {};
  for (uint32_t i = 0; i < key_dim; ++i) {
    float* row = state + size_t{i} * value_dim;
    const F32 k = Set1(step.k[i]);
    const F32 q = Set1(step.q[i]);
    for (uint32_t n = 0; n < Vectors; ++n) {
      const F32 element = Fma(k, written[n], decay * LoadPartial(row + n * kLanes, lanes(n)));
      StorePartial(row + n * kLanes, element, lanes(n));
      result[n] = Fma(element, q, result[n]);
    }
  }
  for (uint32_t n = 0; n < Vectors; ++n) StorePartial(step.y + n * kLanes, result[n], lanes(n));
}

ESSOR_INLINE const float* HeadAt(const HeadsView& view, size_t row, uint32_t head) {
  return view.data + row * view.row_stride + size_t{head} * view.head_stride;
}

template <uint32_t Vectors>
void RunVectors(const LinearAttentionParams& params, const SequenceRows& sequence, uint32_t head,
                uint32_t column, uint32_t tail) {
  const uint32_t key_head = head / (params.num_heads / params.num_key_heads);
  const size_t first_element =
      (size_t{sequence.slot} * params.num_heads + head) * params.key_dim * params.value_dim;
  float* state = params.states + first_element + column;
  if (sequence.context_tokens == 0) {
    for (uint32_t i = 0; i < params.key_dim; ++i) {
      for (uint32_t n = 0; n < Vectors; ++n) {
        StorePartial(state + size_t{i} * params.value_dim + n * kLanes, F32{},
                     n + 1 == Vectors ? tail : kLanes);
      }
    }
  }
  for (uint32_t i = 0; i < sequence.num_rows; ++i) {
    const size_t row = size_t{sequence.first_row} + i;
    const size_t gate = row * params.decay_stride + head;
    const bool delta_rule = params.write_gates != nullptr;
    const StateStep step = {
        .q = HeadAt(params.q, row, key_head),
        .k = HeadAt(params.k, row, key_head),
        .v = HeadAt(params.v, row, head) + column,
        .y = params.y + (row * params.num_heads + head) * params.value_dim + column,
        .decay = params.decays[gate],
        .delta_rule = delta_rule,
        .write_gate = delta_rule ? params.write_gates[gate] : 0.0f,
    };
    TakeStep<Vectors>(step, state, params.key_dim, params.value_dim, tail);
  }
}

// As many columns as `left` says, kStateColumns at most.
template <uint32_t Vectors>
ESSOR_INLINE void RunColumnsOf(const LinearAttentionParams& params, const SequenceRows& sequence,
                               uint32_t head, uint32_t column, uint32_t left) {
  if constexpr (Vectors > 0) {
    if (left > (Vectors - 1) * kLanes) {
      const uint32_t rest = left - (Vectors - 1) * kLanes;
      return RunVectors<Vectors>(params, sequence, head, column, rest < kLanes ? rest : kLanes);
    }
    RunColumnsOf<Vectors - 1>(params, sequence, head, column, left);
  }
}

// Vectors of sums that fit the registers beside what else is there.
constexpr uint32_t kVectorsOfStep = 4;

void RunColumns(const LinearAttentionParams& params, const SequenceRows& sequence, uint32_t head,
                uint32_t column) {
  const uint32_t end =
      params.value_dim - column < kStateColumns ? params.value_dim : column + kStateColumns;
  for (uint32_t at = column; at < end; at += kVectorsOfStep * kLanes) {
    RunColumnsOf<kVectorsOfStep>(params, sequence, head, at, end - at);
  }
}

// Filters of `n` channels, one vector for each tap.
ESSOR_INLINE void LoadFilters(const float* filters, uint32_t taps, uint32_t n,
                              F32 (&vectors)[kConvolutionTapsMax]) {
  for (uint32_t tap = 0; tap < taps; ++tap) {
    float lanes[kLanes] = {};
    for (uint32_t i = 0; i < n; ++i) lanes[i] = filters[i * taps + tap];
    vectors[tap] = Load(lanes);
  }
}

// Channels [channel, channel + n) of one head: the window of inputs moves over the rows.
ESSOR_INLINE void ConvolveVector(const CausalConvolutionParams& params,
                                 const SequenceRows& sequence, uint32_t channel, uint32_t n) {
  const uint32_t taps = params.taps;
  const uint32_t head = channel / params.dim;
  F32 filters[kConvolutionTapsMax];
  LoadFilters(params.filters + size_t{channel} * taps, taps, n, filters);
  // One tap keeps nothing.
  float* state =
      taps == 1 ? nullptr
                : params.states + size_t{sequence.slot} * (taps - 1) * params.state_width + channel;
  F32 window[kConvolutionTapsMax] = {};
  if (sequence.context_tokens != 0) {
    for (uint32_t k = 0; k + 1 < taps; ++k) {
      window[k] = LoadPartial(state + size_t{k} * params.state_width, n);
    }
  }
  for (uint32_t row = 0; row < sequence.num_rows; ++row) {
    const size_t at = size_t{sequence.first_row} + row;
    window[taps - 1] = LoadPartial(HeadAt(params.x, at, head) + channel % params.dim, n);
    F32 sum = {};
    for (uint32_t tap = 0; tap < taps; ++tap) sum = Fma(window[tap], filters[tap], sum);
    StorePartial(params.y + at * params.y_stride + channel, sum * Sigmoid(sum), n);
    for (uint32_t k = 0; k + 1 < taps; ++k) window[k] = window[k + 1];
  }
  for (uint32_t k = 0; k + 1 < taps; ++k) {
    StorePartial(state + size_t{k} * params.state_width, window[k], n);
  }
}

void ConvolveChannels(const CausalConvolutionParams& params, const SequenceRows& sequence,
                      uint32_t begin, uint32_t end) {
  for (uint32_t channel = begin; channel < end; channel += kLanes) {
    ConvolveVector(params, sequence, channel, end - channel < kLanes ? end - channel : kLanes);
  }
}

constexpr LinearAttentionKernels kLinearAttentionKernels = {.run = RunColumns,
                                                            .convolve = ConvolveChannels};

}  // namespace
}  // namespace essor::kernels
