#include "worker/layers/lightning_attention_layer.h"

#include <array>
#include <cmath>

#include "common/status_macros.h"
#include "kernels/elementwise.h"
#include "kernels/linear.h"
#include "kernels/linear_attention.h"

namespace essor::worker {

LightningAttentionLayer::LightningAttentionLayer(const model::LightningAttention& spec,
                                                 const LayerInputs& inputs)
    : spec_(spec),
      inputs_(inputs),
      hidden_(inputs.spec->hidden_size),
      num_heads_(static_cast<uint32_t>(inputs.layout->per_layer[inputs.index].heads.size())),
      width_(num_heads_ * spec.head_dim),
      norm_(static_cast<float>(spec.norm_eps), inputs.scratch.norm_squares, inputs.groups.tp,
            inputs.stream) {
  const model::Range heads = inputs.layout->per_layer[inputs.index].heads;
  for (uint64_t head = heads.begin; head < heads.end; ++head) {
    decays_.push_back(static_cast<float>(std::exp(-spec.slopes[head])));
  }
}

absl::Status LightningAttentionLayer::Forward(const Batch& batch, const float* x, float* y) {
  const LayerScratch& scratch = inputs_.scratch;
  Project(batch, x);
  Attend(batch);
  const SpreadColumns columns{.x = scratch.attention,
                              .stride = width_,
                              .width = width_,
                              .weight = inputs_.weights->linear.norm,
                              .total_width = spec_.num_heads * spec_.head_dim};
  ESSOR_RETURN_IF_ERROR(norm_.Apply(batch.num_rows, {&columns, 1}));
  kernels::GateHeads({.y = scratch.attention,
                      .gate = scratch.key,
                      .gate_stride = width_,
                      .gate_head_stride = spec_.head_dim,
                      .num_rows = batch.num_rows,
                      .num_heads = num_heads_,
                      .head_dim = spec_.head_dim,
                      .kind = kernels::Gate::kSigmoid},
                     *inputs_.stream);
  return ProjectOutput(inputs_, batch, width_, y);
}

KeptPieces LightningAttentionLayer::Kept() const {
  return {.of_block = {},
          .of_sequence = {{.data = reinterpret_cast<std::byte*>(inputs_.state),
                           .bytes = uint64_t{width_} * spec_.head_dim * sizeof(float)}}};
}

// Queries, keys and values side by side for each head, and the output gate.
void LightningAttentionLayer::Project(const Batch& batch, const float* x) {
  const LayerScratch& scratch = inputs_.scratch;
  const std::array<kernels::LinearOutput, 2> outputs{{
      {.weight = inputs_.weights->linear.input, .y = scratch.query, .y_stride = 3 * width_},
      {.weight = inputs_.weights->linear.output_gate, .y = scratch.key, .y_stride = width_},
  }};
  kernels::Linear({.x = x, .x_stride = hidden_, .num_rows = batch.num_rows, .outputs = outputs},
                  *inputs_.stream);
  kernels::Silu(scratch.query, uint64_t{batch.num_rows} * 3 * width_, *inputs_.stream);
}

void LightningAttentionLayer::Attend(const Batch& batch) {
  const uint32_t dim = spec_.head_dim;
  const auto part = [&](uint32_t index) {
    return kernels::HeadsView{.data = inputs_.scratch.query + index * dim,
                              .row_stride = 3 * width_,
                              .head_stride = 3 * dim};
  };
  kernels::LinearAttention({.states = inputs_.state,
                            .q = part(0),
                            .k = part(1),
                            .v = part(2),
                            .decays = decays_.data(),
                            .num_heads = num_heads_,
                            .num_key_heads = num_heads_,
                            .key_dim = dim,
                            .value_dim = dim,
                            .sequences = batch.sequences,
                            .y = inputs_.scratch.attention},
                           *inputs_.stream);
}

}  // namespace essor::worker
