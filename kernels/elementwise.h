// Row-wise operations. Dims: T tokens, H hidden size, D head dim.
#pragma once

#include <cstdint>

#include "kernels/attention_temperature.h"
#include "kernels/packed_matrix.h"
#include "kernels/stream.h"

namespace essor::kernels {

// y[t] = x[t] / sqrt(mean(x[t]^2) + eps) * weight, statistics in float32. With `residual`, first
// residual[t] += x[t] and the norm is taken of the sum. y may be x.
struct RmsNormParams {
  const float* x;             // [T, H]
  float* residual = nullptr;  // [T, H] or null
  const float* weight;        // [H]
  float* y;                   // [T, H]
  uint32_t num_rows;
  uint32_t width;  // H
  float eps;
};
void RmsNorm(const RmsNormParams& params, Stream& stream);

// y[t] = (x[t] - mean(x[t])) / sqrt(variance(x[t]) + eps) * weight + bias, statistics in float32,
// the variance that of the row itself (divided by its width). y may be x.
struct LayerNormParams {
  const float* x;       // [T, H]
  const float* weight;  // [H]
  const float* bias;    // [H]
  float* y;             // [T, H]
  uint32_t num_rows;
  uint32_t width;  // H
  float eps;
};
void LayerNorm(const LayerNormParams& params, Stream& stream);

// RMSNorm of rows that several devices hold in parts, in two steps with an addition of the parts'
// sums between them.
//
// squares[t * squares_stride] = sum of x[t][i]^2 over `width` columns, in float32.
struct RowSquaresParams {
  const float* x;  // [T, width], row stride x_stride floats
  uint32_t x_stride;
  uint32_t num_rows;
  uint32_t width;
  float* squares;
  uint32_t squares_stride;
};
void RowSquares(const RowSquaresParams& params, Stream& stream);

// x[t] = x[t] / sqrt(squares[t * squares_stride] / total_width + eps) * weight, in place, where
// `squares` are the sums over the whole rows and total_width is their length.
struct NormBySquaresParams {
  float* x;  // [T, width], row stride x_stride floats
  uint32_t x_stride;
  uint32_t num_rows;
  uint32_t width;
  const float* weight;  // [width]
  const float* squares;
  uint32_t squares_stride;
  uint32_t total_width;
  float eps;
};
void NormBySquares(const NormBySquaresParams& params, Stream& stream);

// Rows of a vocabulary slice; ids outside [first_id, first_id + table.n) give zeros (the sum over
// the ranks of a stage is then the embedding).
struct EmbeddingParams {
  PackedMatrix table;  // [slice, H]
  uint32_t first_id;
  const uint32_t* token_ids;  // [T]
  uint32_t num_rows;
  float* y;  // [T, H]
};
void Embedding(const EmbeddingParams& params, Stream& stream);

// What queries and keys go through before attention, in place: RMSNorm of each head (when norm
// weights are given), rotation of its first rotary_dim dims, RMSNorm without weights
// (unit_norm_after), and of q alone the temperature. Without norms and temperature the dims that do
// not rotate are neither read nor written: a view that begins inside each head will do.
struct QkNormRopeParams {
  // [T, num_heads, D], row stride q_stride floats, head stride q_head_stride (0: D). Null where
  // there are no heads, as k.
  float* q;
  float* k;  // [T, num_kv_heads, D], row stride k_stride floats
  uint32_t q_stride;
  uint32_t k_stride;
  uint32_t q_head_stride = 0;
  uint32_t num_rows;
  uint32_t num_heads;
  uint32_t num_kv_heads;
  uint32_t head_dim;
  const float* q_norm = nullptr;  // [D] or null
  const float* k_norm = nullptr;  // [D] or null
  float norm_eps = 0;             // of both norms
  const uint32_t* positions;      // [T]
  const float* cos;               // [max_positions, rotary_dim / 2]
  const float* sin;               // likewise
  uint32_t rotary_dim;            // 0 = no rotation
  bool interleaved;               // pairs (2i, 2i+1) instead of (i, i + rotary_dim / 2)
  bool unit_norm_after = false;
  AttentionTemperature temperature = {};
};
void QkNormRope(const QkNormRopeParams& params, Stream& stream);

// x[i] = silu(x[i]) = x[i] / (1 + exp(-x[i])), `count` floats.
void Silu(float* x, uint64_t count, Stream& stream);

// y = y * sigmoid(gate), or y * silu(gate), element by element; sigmoid(x) = 1 / (1 + exp(-x)) and
// silu(x) = x sigmoid(x).
enum class Gate { kSigmoid, kSilu };
struct GateHeadsParams {
  float* y;              // [T, num_heads, D], in place
  const float* gate;     // of row t and head h at gate + t * gate_stride + h * gate_head_stride
  uint32_t gate_stride;  // floats
  uint32_t gate_head_stride;  // likewise
  uint32_t num_rows;
  uint32_t num_heads;
  uint32_t head_dim;  // D
  Gate kind;
};
void GateHeads(const GateHeadsParams& params, Stream& stream);

// y[t] += sigmoid(gates[t]) * x[t].
struct AddGatedParams {
  float* y;            // [T, H]
  const float* x;      // [T, H]
  const float* gates;  // [T]
  uint32_t num_rows;
  uint32_t width;  // H
};
void AddGated(const AddGatedParams& params, Stream& stream);

// z[i] = alpha x[i] + beta y[i], `count` floats; z may be x or y.
struct WeightedSumParams {
  const float* x;
  const float* y;
  float* z;
  uint64_t count;
  float alpha;
  float beta;
};
void WeightedSum(const WeightedSumParams& params, Stream& stream);

// y[i] += x[i], `count` floats.
void Add(float* y, const float* x, uint64_t count, Stream& stream);

}  // namespace essor::kernels
