#include "worker/layers/layer.h"

#include <variant>

#include "kernels/linear.h"
#include "model/plan/scratch_widths.h"
#include "worker/layers/dense_ffn_layer.h"
#include "worker/layers/gated_delta_net_layer.h"
#include "worker/layers/grouped_query_attention_layer.h"
#include "worker/layers/latent_attention_layer.h"
#include "worker/layers/lightning_attention_layer.h"
#include "worker/layers/moe_ffn_layer.h"

namespace essor::worker {
namespace {

template <class... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};
template <class... Cases>
Overloaded(Cases...) -> Overloaded<Cases...>;  // clang 14 does not deduce for aggregates

}  // namespace

LayerScratch TakeLayerScratch(Arena& arena, const model::ModelSpec& spec,
                              const model::RankLayout& layout, uint32_t max_step_tokens) {
  const model::ScratchWidths widths = model::ScratchWidthsOf(spec, layout);
  const uint64_t rows = max_step_tokens;
  LayerScratch scratch;
  scratch.query = arena.Take<float>(rows * widths.attention.query);
  scratch.latent_query = arena.Take<float>(rows * widths.attention.latent_query);
  scratch.query_latent = arena.Take<float>(rows * widths.attention.query_latent);
  scratch.key = arena.Take<float>(rows * widths.attention.key);
  scratch.value = arena.Take<float>(rows * widths.attention.value);
  scratch.attention = arena.Take<float>(rows * widths.attention.result);
  scratch.norm_squares = arena.Take<float>(rows * widths.attention.norm_squares);
  scratch.index_query = arena.Take<float>(rows * widths.attention.index_query);
  scratch.index_key = arena.Take<float>(rows * widths.attention.index_key);
  scratch.index_weights = arena.Take<float>(rows * widths.attention.index_weights);
  scratch.index_slots = arena.Take<uint32_t>(rows * widths.attention.index_slots);
  scratch.router_logits = arena.Take<float>(rows * widths.experts);
  scratch.expert_ids = arena.Take<uint32_t>(rows * widths.top_k);
  scratch.expert_weights = arena.Take<float>(rows * widths.top_k);
  scratch.shared = arena.Take<float>(rows * widths.shared);
  if (widths.top_k > 0) {
    scratch.exchange = ExpertExchangeScratch::Take(
        arena, model::ExpertExchangeSizesOf(spec, layout, max_step_tokens), spec.hidden_size);
  }
  return scratch;
}

absl::Status ProjectOutput(const LayerInputs& inputs, const Batch& batch, uint32_t width,
                           float* y) {
  const uint32_t hidden = inputs.spec->hidden_size;
  const kernels::LinearOutput output{.weight = inputs.weights->output,
                                     .bias = inputs.weights->output_bias,
                                     .y = y,
                                     .y_stride = hidden};
  kernels::Linear({.x = inputs.scratch.attention,
                   .x_stride = width,
                   .num_rows = batch.num_rows,
                   .outputs = {&output, 1}},
                  *inputs.stream);
  return inputs.groups.tp->AllReduceSum({y, size_t{batch.num_rows} * hidden});
}

std::unique_ptr<SubLayer> MakeAttentionLayer(const LayerInputs& inputs) {
  const model::LayerSpec& layer = inputs.spec->layers[inputs.layout->layers.begin + inputs.index];
  return std::visit(
      Overloaded{[&](const model::GroupedQueryAttention& spec) -> std::unique_ptr<SubLayer> {
                   return std::make_unique<GroupedQueryAttentionLayer>(spec, inputs);
                 },
                 [&](const model::LatentAttention& spec) -> std::unique_ptr<SubLayer> {
                   return std::make_unique<LatentAttentionLayer>(spec, inputs);
                 },
                 [&](const model::LightningAttention& spec) -> std::unique_ptr<SubLayer> {
                   return std::make_unique<LightningAttentionLayer>(spec, inputs);
                 },
                 [&](const model::GatedDeltaNet& spec) -> std::unique_ptr<SubLayer> {
                   return std::make_unique<GatedDeltaNetLayer>(spec, inputs);
                 }},
      layer.attention);
}

std::unique_ptr<SubLayer> MakeFfnLayer(const LayerInputs& inputs) {
  const model::LayerSpec& layer = inputs.spec->layers[inputs.layout->layers.begin + inputs.index];
  return std::visit(Overloaded{[&](const model::DenseFfn&) -> std::unique_ptr<SubLayer> {
                                 return std::make_unique<DenseFfnLayer>(inputs);
                               },
                               [&](const model::MoeFfn& spec) -> std::unique_ptr<SubLayer> {
                                 return std::make_unique<MoeFfnLayer>(spec, inputs);
                               }},
                    layer.ffn);
}

}  // namespace essor::worker
