// Gated delta net over a state per sequence (model::GatedDeltaNet).
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/linear_attention.h"
#include "worker/layers/layer.h"

namespace essor::worker {

// The rank's key heads with their value heads and states; the output projection's partial sums are
// added over the tensor-parallel group.
class GatedDeltaNetLayer : public SubLayer {
 public:
  GatedDeltaNetLayer(const model::GatedDeltaNet& spec, const LayerInputs& inputs);
  absl::Status Forward(const Batch& batch, const float* x, float* y) override;
  KeptPieces Kept() const override;

 private:
  void Project(const Batch& batch, const float* x);
  void Convolve(const Batch& batch);
  void NormaliseKeys(const Batch& batch);
  void Attend(const Batch& batch);
  void NormAndGate(const Batch& batch);
  // Of each key head what begins `offset` floats inside its group in what Project() made.
  kernels::HeadsView Projected(uint32_t offset) const;

  const model::GatedDeltaNet& spec_;
  const LayerInputs inputs_;
  const uint32_t hidden_;
  const uint32_t num_heads_;      // value heads of this rank
  const uint32_t num_key_heads_;  // of this rank
  const uint32_t key_width_;      // num_key_heads_ * key_head_dim
  const uint32_t value_width_;    // num_heads_ * value_head_dim
  const uint32_t conv_width_;     // channels of queries, keys and values
  float* const conv_state_;       // behind the states of all sequences
  // RMSNorm with these weights gives vectors of length 1, of queries divided by the root of Dk.
  const std::vector<float> query_norm_;  // [key_head_dim]
  const std::vector<float> key_norm_;    // [key_head_dim]
};

}  // namespace essor::worker
