#include "worker/layers/moe_ffn_layer.h"

#include "kernels/linear.h"
#include "kernels/routing.h"

namespace essor::worker {

absl::Status MoeFfnLayer::Forward(const Batch& batch, const float* x, float* y) {
  const uint32_t hidden = inputs_.spec->hidden_size;
  const LayerScratch& scratch = inputs_.scratch;
  // Every rank computes the same choice from the same bits; nothing has to be agreed on.
  const kernels::LinearOutput logits{
      .weight = inputs_.weights->router, .y = scratch.router_logits, .y_stride = spec_.num_experts};
  kernels::Linear({.x = x, .x_stride = hidden, .num_rows = batch.num_rows, .outputs = {&logits, 1}},
                  *inputs_.stream);
  kernels::Route({.logits = scratch.router_logits,
                  .num_rows = batch.num_rows,
                  .num_experts = spec_.num_experts,
                  .top_k = spec_.top_k,
                  .renormalise = spec_.router.renormalise,
                  .expert_ids = scratch.expert_ids,
                  .expert_weights = scratch.expert_weights},
                 *inputs_.stream);
  const model::Range experts = inputs_.layout->per_layer[inputs_.index].experts;
  kernels::MoeFfn({.x = x,
                   .num_rows = batch.num_rows,
                   .top_k = spec_.top_k,
                   .expert_ids = scratch.expert_ids,
                   .expert_weights = scratch.expert_weights,
                   .first_expert = static_cast<uint32_t>(experts.begin),
                   .experts = inputs_.weights->experts,
                   .y = y},
                  *inputs_.stream);
  return inputs_.groups.stage->AllReduceSum({y, static_cast<size_t>(batch.num_rows) * hidden});
}

}  // namespace essor::worker
