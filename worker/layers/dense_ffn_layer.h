// down(silu(gate x) * up x), sliced over the tensor-parallel group.
#pragma once

#include "worker/layers/layer.h"

namespace essor::worker {

class DenseFfnLayer : public SubLayer {
 public:
  explicit DenseFfnLayer(const LayerInputs& inputs) : inputs_(inputs) {}
  absl::Status Forward(const Batch& batch, const float* x, float* y) override;

 private:
  const LayerInputs inputs_;
};

}  // namespace essor::worker
