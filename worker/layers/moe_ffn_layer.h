// Mixture of experts with the tokens on every rank of the stage: each rank routes all tokens, runs
// its own experts (or slices of them) and its columns of the shared expert, and the outputs are
// added over the stage.
#pragma once

#include "worker/layers/layer.h"

namespace essor::worker {

class MoeFfnLayer : public SubLayer {
 public:
  MoeFfnLayer(const model::MoeFfn& spec, const LayerInputs& inputs)
      : spec_(spec), inputs_(inputs) {}
  absl::Status Forward(const Batch& batch, const float* x, float* y) override;

 private:
  void AddSharedExpert(const Batch& batch, const float* x, float* y);

  const model::MoeFfn& spec_;
  const LayerInputs inputs_;
};

}  // namespace essor::worker
