// Lightning attention over a state per sequence.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/layers/layer.h"
#include "worker/layers/spread_norm.h"

namespace essor::worker {

// The rank's heads with their states. The norm over the results of all heads adds squares over the
// tensor-parallel group, and so are the output projection's partial sums.
class LightningAttentionLayer : public SubLayer {
 public:
  LightningAttentionLayer(const model::LightningAttention& spec, const LayerInputs& inputs);
  absl::Status Forward(const Batch& batch, const float* x, float* y) override;
  KeptPieces Kept() const override;

 private:
  void Project(const Batch& batch, const float* x);
  void Attend(const Batch& batch);

  const model::LightningAttention& spec_;
  const LayerInputs inputs_;
  const uint32_t hidden_;
  const uint32_t num_heads_;   // of this rank
  const uint32_t width_;       // num_heads_ * head_dim
  std::vector<float> decays_;  // exp(-slope) of the rank's heads
  SpreadNorm norm_;
};

}  // namespace essor::worker
