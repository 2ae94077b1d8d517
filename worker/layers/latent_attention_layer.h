// Multi-head latent attention over a paged cache of latents, in the absorbed form for every row
// (docs/decisions/0007): the same additions in prefill and decode.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "kernels/latent_attention.h"
#include "worker/layers/layer.h"
#include "worker/layers/position_selector.h"

namespace essor::worker {

// The rank's query heads over the latents of all tokens, or of those that an indexer chooses. Every
// rank of the tensor-parallel group computes the latents and keeps them for itself; the output
// projection's partial sums are added over the group.
class LatentAttentionLayer : public SubLayer {
 public:
  LatentAttentionLayer(const model::LatentAttention& spec, const LayerInputs& inputs);
  absl::Status Forward(const Batch& batch, const float* x, float* y) override;
  KeptPieces Kept() const override;

 private:
  void ProjectQueries(const Batch& batch, const float* x);
  void ProjectLatents(const Batch& batch, const float* x);
  void Rotate(const Batch& batch);
  // Queries of each head to the space of the latents.
  void AbsorbKeys(const Batch& batch);
  void Attend(const kernels::PagedLatents& cache, std::span<const kernels::SequenceRows> sequences);
  // What each head gathered there to its values, in the place of the queries.
  void ExpandValues(const Batch& batch);
  void ProjectOutput(const Batch& batch, float* y);
  void Multiply(const Batch& batch, const float* x, uint32_t x_stride,
                const kernels::LinearOutput& output);

  const model::LatentAttention& spec_;
  const LayerInputs inputs_;
  const uint32_t hidden_;
  const uint32_t num_heads_;  // of this rank
  const kernels::PagedLatents cache_;
  std::optional<PositionSelector> selector_;  // where the model has an indexer
};

}  // namespace essor::worker
