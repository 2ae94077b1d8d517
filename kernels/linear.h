// Matrix products with packed weights. In all of them a row of the result depends only on its own
// row of x: the same bits whatever T is and whatever the other rows hold.
//
// Dims: T = rows of x (tokens), K = inputs, N = outputs, E = experts, k = experts per token.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/packed_matrix.h"
#include "kernels/stream.h"

namespace essor::kernels {

struct LinearOutput {
  PackedMatrix weight;          // [N, K]
  const float* bias = nullptr;  // [N] or null
  float* y = nullptr;           // [T, N], row stride y_stride
  uint32_t y_stride = 0;
  bool accumulate = false;  // y += instead of y =
};

// Several products of the same x (query, key and value; or just one).
struct LinearParams {
  const float* x;  // [T, K], row stride x_stride
  uint32_t x_stride;
  uint32_t num_rows;  // T; 0 is allowed and does nothing
  std::span<const LinearOutput> outputs;
  // kBF16, kFp8, kFp4 and kInt4 weights only: x counts as the sum of two bfloat16 values instead of
  // one, so that its rounding (2^-17 instead of 2^-9) vanishes beside that of the weights. Twice
  // the multiplications, the same weight bytes; other formats ignore it.
  bool split_x = false;
};
void Linear(const LinearParams& params, Stream& stream);
// Workspace that Linear asks for, at most, with up to `max_rows` rows of `k` columns and weights of
// this format; with outputs of several formats the sum over the formats.
size_t LinearWorkspaceBytes(WeightFormat format, uint32_t k, uint32_t max_rows,
                            bool split_x = false);

// What becomes of g = gate x and u = up x: silu(g) * u; or, with a limit above 0, gpt-oss's
// clamped form c * sigmoid(alpha * c) * (clamp(u, -limit, limit) + 1) of c = min(g, limit)
// (transformers, models/gpt_oss).
struct GatedActivation {
  float limit = 0;
  float alpha = 1;  // of the clamped form
};

// Weights of one gated FFN: y = down(activation(gate x, up x)). With a down matrix that takes x as
// bfloat16 the hidden values count as two bfloat16 values each, as with LinearParams::split_x:
// their rounding would be the largest of a layer. gate and up have the same format.
struct GatedFfnWeights {
  PackedMatrix gate;                 // [I, K]
  PackedMatrix up;                   // [I, K]
  PackedMatrix down;                 // [H, I]
  const float* gate_bias = nullptr;  // [I] or null, as are the others
  const float* up_bias = nullptr;    // [I]
  const float* down_bias = nullptr;  // [H]
};

struct GatedFfnParams {
  const float* x;     // [T, K]
  uint32_t num_rows;  // T
  GatedFfnWeights weights;
  GatedActivation activation = {};
  float* y;  // [T, H], overwritten
};
void GatedFfn(const GatedFfnParams& params, Stream& stream);

// y[t] = sum over j of expert_weights[t, j] * ffn_{expert_ids[t, j]}(x[t]), or with weigh_input of
// ffn_{expert_ids[t, j]}(expert_weights[t, j] * x[t]), in the order of j, over the experts that are
// present. A token without a present expert gets zeros.
struct MoeFfnParams {
  const float* x;     // [T, K]
  uint32_t num_rows;  // T
  uint32_t top_k;
  const uint32_t* expert_ids;   // [T, k], in the whole model's numbering
  const float* expert_weights;  // [T, k]
  bool weigh_input = false;
  uint32_t first_expert;  // experts[i] is expert first_expert + i; others are absent
  std::span<const GatedFfnWeights> experts;  // not empty; all of the same shapes and formats
  GatedActivation activation = {};
  float* y;  // [T, H], overwritten
};
void MoeFfn(const MoeFfnParams& params, Stream& stream);

// What MoeFfn adds up: a row of y ([P, H]) for each of the P pairs (t, j) whose expert is present,
// in the order of t and then j, not multiplied by the weight. CombineExperts (expert_rows.h) makes
// MoeFfn's y of them, bit by bit, also of rows that several devices computed.
void MoeExpertRows(const MoeFfnParams& params, Stream& stream);

// Workspace that MoeFfn and MoeExpertRows ask for, at most; for GatedFfn with num_experts = top_k =
// 1.
struct FfnShape {
  WeightFormat gate_up_format;
  WeightFormat down_format;
  uint32_t hidden;        // K and H
  uint32_t intermediate;  // I
  uint32_t num_experts;   // present ones
  uint32_t top_k;
};
size_t FfnWorkspaceBytes(const FfnShape& shape, uint32_t max_rows, uint32_t num_threads);

}  // namespace essor::kernels
