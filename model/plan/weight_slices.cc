#include "model/plan/weight_slices.h"

#include <variant>

namespace essor::model {
namespace {

Range Times(Range range, uint64_t factor) { return {range.begin * factor, range.end * factor}; }

// `range` of the rows (columns), all of the columns (rows); nothing when it is empty.
std::optional<WeightPart> Rows(const WeightBinding& weight, Range range) {
  if (range.size() == 0) return std::nullopt;
  return WeightPart{.rows = range, .cols = {0, weight.cols}};
}
std::optional<WeightPart> Cols(const WeightBinding& weight, Range range) {
  if (range.size() == 0) return std::nullopt;
  return WeightPart{.rows = {0, weight.rows}, .cols = range};
}
std::optional<WeightPart> Whole(const WeightBinding& weight) {
  return Rows(weight, {0, weight.rows});
}

std::optional<WeightPart> OuterPart(const RankLayout& layout, const ModelSpec& spec,
                                    const WeightBinding& weight) {
  switch (weight.role) {
    case WeightRole::kEmbedding:
      if (layout.first_stage || (layout.last_stage && spec.tied_embeddings)) {
        return Rows(weight, layout.vocab);
      }
      return std::nullopt;
    case WeightRole::kHead:
      return layout.last_stage ? Rows(weight, layout.vocab) : std::nullopt;
    default:  // the final norm
      return layout.last_stage ? Whole(weight) : std::nullopt;
  }
}

// The intermediate columns that the rank has of the FFN (or the expert) that `weight` belongs to.
Range FfnColumns(const RankLayout::Layer& layer, const WeightBinding& weight) {
  if (weight.expert < 0) return layer.ffn;
  const auto expert = static_cast<uint64_t>(weight.expert);
  if (expert < layer.experts.begin || expert >= layer.experts.end) return {};
  return layer.expert_ffn;
}

std::optional<WeightPart> LayerPart(const RankLayout& layout, const RankLayout::Layer& layer,
                                    uint32_t head_dim, const WeightBinding& weight) {
  switch (weight.role) {
    case WeightRole::kQuery:
      return Rows(weight, Times(layer.heads, head_dim));
    case WeightRole::kKey:
    case WeightRole::kValue:
      return Rows(weight, Times(layer.kv_heads, head_dim));
    case WeightRole::kQueryBias:
    case WeightRole::kOutput:
      return Cols(weight, Times(layer.heads, head_dim));
    case WeightRole::kKeyBias:
    case WeightRole::kValueBias:
      return Cols(weight, Times(layer.kv_heads, head_dim));
    case WeightRole::kOutputBias:
      return layout.tp_index == 0 ? Whole(weight) : std::nullopt;
    case WeightRole::kGate:
    case WeightRole::kUp:
      return Rows(weight, FfnColumns(layer, weight));
    case WeightRole::kDown:
      return Cols(weight, FfnColumns(layer, weight));
    default:  // norms and router
      return Whole(weight);
  }
}

}  // namespace

std::optional<WeightPart> PartOf(const RankLayout& layout, const ModelSpec& spec,
                                 const WeightBinding& weight) {
  if (weight.layer < 0) return OuterPart(layout, spec, weight);
  const auto layer = static_cast<uint64_t>(weight.layer);
  if (layer < layout.layers.begin || layer >= layout.layers.end) return std::nullopt;
  const auto& attention = std::get<GroupedQueryAttention>(spec.layers[layer].attention);
  return LayerPart(layout, layout.per_layer[layer - layout.layers.begin], attention.head_dim,
                   weight);
}

std::vector<WeightSlice> SlicesOf(const RankLayout& layout, const ModelSpec& spec,
                                  const std::vector<WeightBinding>& bindings) {
  std::vector<WeightSlice> slices;
  for (const WeightBinding& binding : bindings) {
    const auto part = PartOf(layout, spec, binding);
    if (part.has_value()) {
      slices.push_back({.binding = binding, .rows = part->rows, .cols = part->cols});
    }
  }
  return slices;
}

}  // namespace essor::model
