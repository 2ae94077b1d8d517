#include "worker/layers/gated_delta_net_layer.h"

#include <array>
#include <cmath>

#include "kernels/elementwise.h"
#include "kernels/linear.h"
#include "model/spec/decoder_config.h"

namespace essor::worker {

static_assert(model::kMaxConvTaps <= kernels::kConvolutionTapsMax);

namespace {

// Added to the squared length of queries and keys before they are divided by it.
constexpr float kLengthEps = 1e-6f;

}  // namespace

GatedDeltaNetLayer::GatedDeltaNetLayer(const model::GatedDeltaNet& spec, const LayerInputs& inputs)
    : spec_(spec),
      inputs_(inputs),
      hidden_(inputs.spec->hidden_size),
      num_heads_(static_cast<uint32_t>(inputs.layout->per_layer[inputs.index].heads.size())),
      num_key_heads_(num_heads_ / spec.values_per_key()),
      key_width_(num_key_heads_ * spec.key_head_dim),
      value_width_(num_heads_ * spec.value_head_dim),
      conv_width_(2 * key_width_ + value_width_),
      conv_state_(inputs.state + size_t{inputs.state_slots} * num_heads_ * spec.key_head_dim *
                                     spec.value_head_dim),
      // x / sqrt(sum x^2 + eps) = x / sqrt(mean x^2 + eps / Dk) / sqrt(Dk).
      query_norm_(spec.key_head_dim, 1.0f / static_cast<float>(spec.key_head_dim)),
      key_norm_(spec.key_head_dim, 1.0f / std::sqrt(static_cast<float>(spec.key_head_dim))) {}

absl::Status GatedDeltaNetLayer::Forward(const Batch& batch, const float* x, float* y) {
  Project(batch, x);
  Convolve(batch);
  NormaliseKeys(batch);
  Attend(batch);
  NormAndGate(batch);
  return ProjectOutput(inputs_, batch, value_width_, y);
}

KeptPieces GatedDeltaNetLayer::Kept() const {
  const uint64_t state = uint64_t{value_width_} * spec_.key_head_dim * sizeof(float);
  const uint64_t inputs = uint64_t{spec_.conv_taps - 1} * conv_width_ * sizeof(float);
  return {.of_block = {},
          .of_sequence = {{.data = reinterpret_cast<std::byte*>(inputs_.state), .bytes = state},
                          {.data = reinterpret_cast<std::byte*>(conv_state_), .bytes = inputs}}};
}

void GatedDeltaNetLayer::Project(const Batch& batch, const float* x) {
  const LayerScratch& scratch = inputs_.scratch;
  const std::array<kernels::LinearOutput, 2> outputs{{
      {.weight = inputs_.weights->linear.input,
       .y = scratch.query,
       .y_stride = num_key_heads_ * spec_.group_rows()},
      {.weight = inputs_.weights->linear.delta_gates,
       .y = scratch.value,
       .y_stride = 2 * num_heads_},
  }};
  kernels::Linear({.x = x, .x_stride = hidden_, .num_rows = batch.num_rows, .outputs = outputs},
                  *inputs_.stream);
}

kernels::HeadsView GatedDeltaNetLayer::Projected(uint32_t offset) const {
  return {.data = inputs_.scratch.query + offset,
          .row_stride = num_key_heads_ * spec_.group_rows(),
          .head_stride = spec_.group_rows()};
}

// Queries, keys and values through their filters, side by side into scratch.key. The value heads of
// a key head lie one behind the other, so that they count as one head of their summed dims.
void GatedDeltaNetLayer::Convolve(const Batch& batch) {
  const LinearAttentionWeights& weights = inputs_.weights->linear;
  struct Part {
    uint32_t offset;  // in a key head's group
    uint32_t dim;     // for each key head
    const float* filters;
    uint32_t channel;  // of the first one in states and results
  };
  const uint32_t key_dim = spec_.key_head_dim;
  const std::array<Part, 3> parts{{
      {0, key_dim, weights.query_filter, 0},
      {key_dim, key_dim, weights.key_filter, key_width_},
      {2 * key_dim, spec_.values_per_key() * spec_.value_head_dim, weights.value_filter,
       2 * key_width_},
  }};
  for (const Part& part : parts) {
    kernels::CausalConvolution({.states = conv_state_ + part.channel,
                                .state_width = conv_width_,
                                .x = Projected(part.offset),
                                .filters = part.filters,
                                .taps = spec_.conv_taps,
                                .num_heads = num_key_heads_,
                                .dim = part.dim,
                                .sequences = batch.sequences,
                                .y = inputs_.scratch.key + part.channel,
                                .y_stride = conv_width_},
                               *inputs_.stream);
  }
}

void GatedDeltaNetLayer::NormaliseKeys(const Batch& batch) {
  kernels::QkNormRope({.q = inputs_.scratch.key,
                       .k = inputs_.scratch.key + key_width_,
                       .q_stride = conv_width_,
                       .k_stride = conv_width_,
                       .num_rows = batch.num_rows,
                       .num_heads = num_key_heads_,
                       .num_kv_heads = num_key_heads_,
                       .head_dim = spec_.key_head_dim,
                       .q_norm = query_norm_.data(),
                       .k_norm = key_norm_.data(),
                       .norm_eps = kLengthEps / static_cast<float>(spec_.key_head_dim),
                       .positions = batch.positions,
                       .cos = nullptr,
                       .sin = nullptr,
                       .rotary_dim = 0,
                       .interleaved = false},
                      *inputs_.stream);
}

void GatedDeltaNetLayer::Attend(const Batch& batch) {
  const LayerScratch& scratch = inputs_.scratch;
  const size_t rows = batch.num_rows;
  float* decays = scratch.value + rows * 2 * num_heads_;
  float* write_gates = decays + rows * num_heads_;
  kernels::DeltaGates({.gates = scratch.value,
                       .rates = inputs_.weights->linear.decay_rate,
                       .biases = inputs_.weights->linear.decay_bias,
                       .num_rows = batch.num_rows,
                       .num_heads = num_heads_,
                       .num_key_heads = num_key_heads_,
                       .decays = decays,
                       .write_gates = write_gates},
                      *inputs_.stream);
  kernels::LinearAttention({.states = inputs_.state,
                            .q = {scratch.key, conv_width_, spec_.key_head_dim},
                            .k = {scratch.key + key_width_, conv_width_, spec_.key_head_dim},
                            .v = {scratch.key + 2 * key_width_, conv_width_, spec_.value_head_dim},
                            .decays = decays,
                            .write_gates = write_gates,
                            .decay_stride = num_heads_,
                            .num_heads = num_heads_,
                            .num_key_heads = num_key_heads_,
                            .key_dim = spec_.key_head_dim,
                            .value_dim = spec_.value_head_dim,
                            .sequences = batch.sequences,
                            .y = scratch.attention},
                           *inputs_.stream);
}

// RMSNorm of each value head, then times silu of its z.
void GatedDeltaNetLayer::NormAndGate(const Batch& batch) {
  const LayerScratch& scratch = inputs_.scratch;
  const uint32_t group_values = spec_.values_per_key() * spec_.value_head_dim;
  kernels::QkNormRope({.q = scratch.attention,
                       .k = nullptr,
                       .q_stride = value_width_,
                       .k_stride = 0,
                       .num_rows = batch.num_rows,
                       .num_heads = num_heads_,
                       .num_kv_heads = 0,
                       .head_dim = spec_.value_head_dim,
                       .q_norm = inputs_.weights->linear.norm,
                       .norm_eps = static_cast<float>(inputs_.spec->norm_eps),
                       .positions = batch.positions,
                       .cos = nullptr,
                       .sin = nullptr,
                       .rotary_dim = 0,
                       .interleaved = false},
                      *inputs_.stream);
  kernels::GateHeads({.y = scratch.attention,
                      .gate = scratch.query + 2 * spec_.key_head_dim + group_values,
                      .gate_stride = num_key_heads_ * spec_.group_rows(),
                      .gate_head_stride = spec_.group_rows(),
                      .num_rows = batch.num_rows,
                      .num_heads = num_key_heads_,
                      .head_dim = group_values,
                      .kind = kernels::Gate::kSilu},
                     *inputs_.stream);
}

}  // namespace essor::worker
