#include "worker/layers/layer.h"

#include <algorithm>
#include <variant>

#include "model/plan/attention_shape.h"
#include "worker/layers/dense_ffn_layer.h"
#include "worker/layers/grouped_query_attention_layer.h"
#include "worker/layers/latent_attention_layer.h"
#include "worker/layers/moe_ffn_layer.h"

namespace essor::worker {
namespace {

template <class... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};
template <class... Cases>
Overloaded(Cases...) -> Overloaded<Cases...>;  // clang 14 does not deduce for aggregates

// Widths of the scratch rows.
struct Widths {
  model::AttentionWidths attention = {};
  uint64_t experts = 0;
  uint64_t top_k = 0;
  uint64_t shared = 0;
};

Widths WidthsOf(const model::ModelSpec& spec, const model::RankLayout& layout) {
  Widths widths;
  for (size_t i = 0; i < layout.per_layer.size(); ++i) {
    const model::LayerSpec& layer = spec.layers[layout.layers.begin + i];
    widths.attention = model::Widest(
        widths.attention, model::AttentionWidthsOf(layer.attention, layout.per_layer[i]));
    if (const auto* moe = std::get_if<model::MoeFfn>(&layer.ffn)) {
      widths.experts = std::max<uint64_t>(widths.experts, moe->num_experts);
      widths.top_k = std::max<uint64_t>(widths.top_k, moe->top_k);
      if (layout.per_layer[i].ffn.size() > 0) widths.shared = spec.hidden_size;
    }
  }
  return widths;
}

}  // namespace

LayerScratch TakeLayerScratch(Arena& arena, const model::ModelSpec& spec,
                              const model::RankLayout& layout, uint32_t max_step_tokens) {
  const Widths widths = WidthsOf(spec, layout);
  const uint64_t rows = max_step_tokens;
  LayerScratch scratch;
  scratch.query = arena.Take<float>(rows * widths.attention.query);
  scratch.latent_query = arena.Take<float>(rows * widths.attention.latent_query);
  scratch.query_latent = arena.Take<float>(rows * widths.attention.query_latent);
  scratch.key = arena.Take<float>(rows * widths.attention.key);
  scratch.value = arena.Take<float>(rows * widths.attention.value);
  scratch.attention = arena.Take<float>(rows * widths.attention.result);
  scratch.router_logits = arena.Take<float>(rows * widths.experts);
  scratch.expert_ids = arena.Take<uint32_t>(rows * widths.top_k);
  scratch.expert_weights = arena.Take<float>(rows * widths.top_k);
  scratch.shared = arena.Take<float>(rows * widths.shared);
  return scratch;
}

std::unique_ptr<SubLayer> MakeAttentionLayer(const LayerInputs& inputs) {
  const model::LayerSpec& layer = inputs.spec->layers[inputs.layout->layers.begin + inputs.index];
  return std::visit(
      Overloaded{[&](const model::GroupedQueryAttention& spec) -> std::unique_ptr<SubLayer> {
                   return std::make_unique<GroupedQueryAttentionLayer>(spec, inputs);
                 },
                 [&](const model::LatentAttention& spec) -> std::unique_ptr<SubLayer> {
                   return std::make_unique<LatentAttentionLayer>(spec, inputs);
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
