#include "worker/layers/moe_ffn_layer.h"

#include <algorithm>

#include "common/status_macros.h"
#include "kernels/elementwise.h"
#include "kernels/linear.h"
#include "kernels/routing.h"
#include "model/spec/decoder_config.h"

namespace essor::worker {

static_assert(model::kMaxExperts <= kernels::kRoutedExpertsMax);

namespace {

kernels::GatedActivation ActivationOf(const model::MoeFfn& spec) {
  if (!spec.clamped.has_value()) return {};
  return {.limit = static_cast<float>(spec.clamped->limit),
          .alpha = static_cast<float>(spec.clamped->alpha)};
}

}  // namespace

MoeFfnLayer::MoeFfnLayer(const model::MoeFfn& spec, const LayerInputs& inputs)
    : spec_(spec), inputs_(inputs) {
  if (inputs.groups.stage == nullptr) return;
  const model::RankLayout& layout = *inputs.layout;
  const model::Range experts = layout.per_layer[inputs.index].experts;
  exchange_.emplace(
      ExpertExchange::Inputs{.holders = ExpertHolders::Of(layout, spec.num_experts),
                             .rank_in_stage = layout.rank_in_stage,
                             .group_size = static_cast<uint32_t>(layout.group_ranks.size()),
                             .hidden_size = inputs.spec->hidden_size,
                             .top_k = spec.top_k,
                             .weigh_input = spec.router.weigh_input,
                             .activation = ActivationOf(spec),
                             .first_expert = static_cast<uint32_t>(experts.begin),
                             .experts = inputs.weights->experts,
                             .scratch = inputs.scratch.exchange,
                             .stage = inputs.groups.stage,
                             .stream = inputs.stream});
}

absl::Status MoeFfnLayer::Forward(const Batch& batch, const float* x, float* y) {
  if (exchange_.has_value()) {
    ESSOR_RETURN_IF_ERROR(RunSpreadExperts(batch, x, y));
  } else {
    RunOwnExperts(batch, x, y);
  }
  if (batch.num_rows == 0) return absl::OkStatus();
  AddSharedExpert(batch, x, y);
  return inputs_.groups.group->AllReduceSum(
      {y, size_t{batch.num_rows} * inputs_.spec->hidden_size});
}

void MoeFfnLayer::Route(const float* x, uint32_t num_rows) {
  const LayerScratch& scratch = inputs_.scratch;
  const kernels::LinearOutput logits{.weight = inputs_.weights->router,
                                     .bias = inputs_.weights->router_logit_bias,
                                     .y = scratch.router_logits,
                                     .y_stride = spec_.num_experts};
  kernels::Linear({.x = x,
                   .x_stride = inputs_.spec->hidden_size,
                   .num_rows = num_rows,
                   .outputs = {&logits, 1}},
                  *inputs_.stream);
  kernels::Route({.logits = scratch.router_logits,
                  .num_rows = num_rows,
                  .num_experts = spec_.num_experts,
                  .top_k = spec_.top_k,
                  .score = spec_.router.score == model::RouterSpec::Score::kSigmoid
                               ? kernels::RouterScore::kSigmoid
                               : kernels::RouterScore::kSoftmax,
                  .bias = inputs_.weights->router_bias,
                  .num_groups = spec_.router.num_groups,
                  .top_groups = spec_.router.top_groups,
                  .renormalise = spec_.router.renormalise,
                  .scale = static_cast<float>(spec_.router.scale),
                  .expert_ids = scratch.expert_ids,
                  .expert_weights = scratch.expert_weights},
                 *inputs_.stream);
}

// Every rank computes the same choice from the same bits; nothing has to be agreed on.
void MoeFfnLayer::RunOwnExperts(const Batch& batch, const float* x, float* y) {
  Route(x, batch.num_rows);
  const LayerScratch& scratch = inputs_.scratch;
  const model::Range experts = inputs_.layout->per_layer[inputs_.index].experts;
  kernels::MoeFfn({.x = x,
                   .num_rows = batch.num_rows,
                   .top_k = spec_.top_k,
                   .expert_ids = scratch.expert_ids,
                   .expert_weights = scratch.expert_weights,
                   .weigh_input = spec_.router.weigh_input,
                   .first_expert = static_cast<uint32_t>(experts.begin),
                   .experts = inputs_.weights->experts,
                   .activation = ActivationOf(spec_),
                   .y = y},
                  *inputs_.stream);
}

// The rows of the group's other ranks are zeros, for the sum over the group.
absl::Status MoeFfnLayer::RunSpreadExperts(const Batch& batch, const float* x, float* y) {
  const size_t hidden = inputs_.spec->hidden_size;
  const RowPart part = exchange_->OwnPart(batch.group_rows);
  std::fill_n(y, part.begin * hidden, 0.0f);
  std::fill(y + part.end * hidden, y + batch.num_rows * hidden, 0.0f);
  const float* const own = x + part.begin * hidden;
  if (part.size() > 0) Route(own, part.size());
  return exchange_->Run(batch.group_rows, own, inputs_.scratch.expert_ids,
                        inputs_.scratch.expert_weights, y + part.begin * hidden);
}

// The rank's columns of it: the sum over the group that completes the experts completes it too.
void MoeFfnLayer::AddSharedExpert(const Batch& batch, const float* x, float* y) {
  if (inputs_.weights->dense.gate.n == 0) return;
  kernels::GatedFfn({.x = x,
                     .num_rows = batch.num_rows,
                     .weights = inputs_.weights->dense,
                     .y = inputs_.scratch.shared},
                    *inputs_.stream);
  if (!spec_.shared_gate) {
    kernels::Add(y, inputs_.scratch.shared, uint64_t{batch.num_rows} * inputs_.spec->hidden_size,
                 *inputs_.stream);
    return;
  }
  // The router's logits have been used.
  const kernels::LinearOutput gate{
      .weight = inputs_.weights->shared_gate, .y = inputs_.scratch.router_logits, .y_stride = 1};
  kernels::Linear({.x = x,
                   .x_stride = inputs_.spec->hidden_size,
                   .num_rows = batch.num_rows,
                   .outputs = {&gate, 1}},
                  *inputs_.stream);
  kernels::AddGated({.y = y,
                     .x = inputs_.scratch.shared,
                     .gates = inputs_.scratch.router_logits,
                     .num_rows = batch.num_rows,
                     .width = inputs_.spec->hidden_size},
                    *inputs_.stream);
}

}  // namespace essor::worker
