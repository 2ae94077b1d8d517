// Softmax attention with grouped KV heads over a paged cache.
#pragma once

#include <cstdint>

#include "worker/layers/layer.h"
#include "worker/layers/spread_norm.h"

namespace essor::worker {

// The rank's query heads with their KV heads; the output projection's partial sums are added over
// the tensor-parallel group.
class GroupedQueryAttentionLayer : public SubLayer {
 public:
  GroupedQueryAttentionLayer(const model::GroupedQueryAttention& spec, const LayerInputs& inputs);
  absl::Status Forward(const Batch& batch, const float* x, float* y) override;
  KeptPieces Kept() const override;

 private:
  void Project(const Batch& batch, const float* x);
  // QK-norm over the dims of all heads, those of other ranks included.
  absl::Status NormFullWidth(const Batch& batch);
  void NormAndRotate(const Batch& batch);
  void Attend(const Batch& batch);

  const model::GroupedQueryAttention& spec_;
  const LayerInputs inputs_;
  const uint32_t hidden_;
  const uint32_t num_heads_;          // of this rank
  const uint32_t num_kv_heads_;       // of this rank
  const uint32_t query_head_stride_;  // floats from one head's query to the next one's
  const kernels::PagedKv cache_;
  SpreadNorm full_width_norm_;  // of QkNorm::kFullWidth
};

}  // namespace essor::worker
