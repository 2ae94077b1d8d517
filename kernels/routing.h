// The router of an MoE layer. Dims: T tokens, E experts, k chosen.
#pragma once

#include <cstdint>

#include "kernels/stream.h"

namespace essor::kernels {

enum class RouterScore {
  kSoftmax,  // exp(l) over the sum of all E
  kSigmoid,  // 1 / (1 + exp(-l))
};

// The most experts that the general router below takes.
inline constexpr uint32_t kRoutedExpertsMax = 4096;

// The k best experts of a row (ties: the lower expert id first) and their weights.
//
// Scores are float32. An expert's choice value is its score plus its bias (float32), or where there
// is neither bias nor groups its logit (which orders as the scores do and does not saturate). With
// groups, the E experts are num_groups equal, consecutive ones, a group's value is the sum of its
// two best choice values, and experts outside the top_groups best groups are out of the question
// (value -infinity: zero would be wrong with negative biases). The k best choice values win. A
// weight is the score without the bias, divided by the sum of the k if `renormalise` (by at least
// 1e-20), times scale. (DeepSeek-V3: arXiv 2412.19437 section 2.1.2.)
//
// The choice is the same on every processor: routers without bias and groups compare logits, the
// others score with arithmetic that has one result. A NaN logit counts as -infinity,
// and so does a choice value that a NaN bias makes NaN; where no logit is above that the weights
// are NaN. The ids are distinct and valid in any case.
struct RouterParams {
  const float* logits;  // [T, E]
  uint32_t num_rows;
  uint32_t num_experts;
  uint32_t top_k;  // 1 .. num_experts
  RouterScore score = RouterScore::kSoftmax;
  const float* bias = nullptr;  // [E] or null
  uint32_t num_groups = 1;      // divides num_experts
  uint32_t top_groups = 1;      // 1 .. num_groups, with top_k experts among them at least
  bool renormalise;
  float scale = 1;
  uint32_t* expert_ids;   // [T, k], best first
  float* expert_weights;  // [T, k]
};
void Route(const RouterParams& params, Stream& stream);

// Chosen by comparing logits.
inline bool ChoosesByLogit(const RouterParams& params) {
  return params.bias == nullptr && params.num_groups == 1;
}

// Nor is there a scale: the weights come from the chosen logits alone.
inline bool IsPlainSoftmax(const RouterParams& params) {
  return params.score == RouterScore::kSoftmax && ChoosesByLogit(params) && params.scale == 1;
}

}  // namespace essor::kernels
