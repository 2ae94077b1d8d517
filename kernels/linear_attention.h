// Linear attention: the past of a sequence is one matrix per head instead of keys and values of all
// tokens. The state goes through the tokens one by one in every case, prefill and decode, so that a
// token's bits depend on its sequence only and not on how a prompt was cut.
//
// Dims: T tokens, H heads, Hk key heads (H a multiple of Hk), Dk key dim, Dv value dim.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/attention.h"
#include "kernels/stream.h"

namespace essor::kernels {

// A vector of one head and row begins at data + row * row_stride + head * head_stride (floats).
// Borrowed for the call.
struct HeadsView {
  const float* data;
  uint32_t row_stride;
  uint32_t head_stride;
};

// For each sequence, head h and row in order, with key head h / (H / Hk) and S the head's state
// (zero before the first token of the sequence):
//
//   d = v, or with `write_gates` (v - decay * S^T k) * write_gate   (the delta rule)
//   S = decay * S + k d^T
//   y = S^T q
//
// Lightning attention: arXiv 2501.08313 section 2.2. Gated delta rule: arXiv 2412.06464,
// equation 10.
struct LinearAttentionParams {
  // [num_slots, H, Dk, Dv]; a sequence's are at its SequenceRows::slot and need no clearing.
  float* states;
  HeadsView q;  // Hk heads of Dk
  HeadsView k;  // likewise
  HeadsView v;  // H heads of Dv
  // [H] of row t at decays + t * decay_stride; a stride of 0 = the same for all rows. Likewise the
  // write gates, or null.
  const float* decays;
  const float* write_gates = nullptr;
  uint32_t decay_stride = 0;
  uint32_t num_heads;      // H
  uint32_t num_key_heads;  // Hk
  uint32_t key_dim;        // Dk
  uint32_t value_dim;      // Dv
  std::span<const SequenceRows> sequences;
  float* y;  // [T, H * Dv], distinct from v
};
void LinearAttention(const LinearAttentionParams& params, Stream& stream);

// For each sequence, channel c and row t: y = silu(sum over j of filters[c, j] * x[t - taps + 1 +
// j]), x = 0 before the first token of the sequence (a causal convolution with one filter per
// channel). Channels are those of num_heads heads of `dim` side by side.
struct CausalConvolutionParams {
  // The last taps - 1 inputs of each sequence, at its SequenceRows::slot; they need no clearing.
  float* states;         // [num_slots, taps - 1, state_width]; may be null with one tap
  uint32_t state_width;  // floats; at least num_heads * dim
  HeadsView x;           // num_heads heads of dim
  const float* filters;  // [num_heads * dim, taps]
  uint32_t taps;         // 1 .. kConvolutionTapsMax
  uint32_t num_heads;
  uint32_t dim;
  std::span<const SequenceRows> sequences;
  float* y;  // channel c of row t at y + t * y_stride + c
  uint32_t y_stride;
};
inline constexpr uint32_t kConvolutionTapsMax = 8;
void CausalConvolution(const CausalConvolutionParams& params, Stream& stream);

// Decays and write gates of the gated delta rule, of each row and head:
// decay = exp(-exp(rate) * ln(1 + exp(a + bias))), write gate = sigmoid(b) (arXiv 2412.06464,
// section 3.3; Qwen3-Next).
struct DeltaGatesParams {
  // [T, Hk, 2, H / Hk]: of each key head the b of its heads, then their a.
  const float* gates;
  const float* rates;   // [H]
  const float* biases;  // [H]
  uint32_t num_rows;
  uint32_t num_heads;      // H
  uint32_t num_key_heads;  // Hk
  float* decays;           // [T, H]
  float* write_gates;      // [T, H]
};
void DeltaGates(const DeltaGatesParams& params, Stream& stream);

}  // namespace essor::kernels
