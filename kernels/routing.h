// The router of an MoE layer. Dims: T tokens, E experts, k chosen.
#pragma once

#include <cstdint>

#include "kernels/stream.h"

namespace essor::kernels {

// Softmax over the E logits of a row in float32, the k largest (ties: the lower expert id first),
// optionally divided by their sum. The k largest are chosen by comparing logits, so that the choice
// is the same on every processor. NaN counts as -infinity; where no logit is above that the weights
// are NaN, and the ids still valid.
struct RouterParams {
  const float* logits;  // [T, E]
  uint32_t num_rows;
  uint32_t num_experts;
  uint32_t top_k;  // 1 .. num_experts
  bool renormalise;
  uint32_t* expert_ids;   // [T, k], best first
  float* expert_weights;  // [T, k]
};
void Route(const RouterParams& params, Stream& stream);

}  // namespace essor::kernels
