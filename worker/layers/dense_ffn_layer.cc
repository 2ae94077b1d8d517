#include "worker/layers/dense_ffn_layer.h"

#include "kernels/linear.h"

namespace essor::worker {

absl::Status DenseFfnLayer::Forward(const Batch& batch, const float* x, float* y) {
  kernels::GatedFfn({.x = x, .num_rows = batch.num_rows, .weights = inputs_.weights->dense, .y = y},
                    *inputs_.stream);
  const size_t hidden = inputs_.spec->hidden_size;
  return inputs_.groups.tp->AllReduceSum({y, batch.num_rows * hidden});
}

}  // namespace essor::worker
