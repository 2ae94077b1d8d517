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

constexpr LinearAttentionKernels kLinearAttentionKernels = {.run = RunColumns};

}  // namespace
}  // namespace essor::kernels
