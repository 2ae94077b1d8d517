#include "model/plan/weight_slices.h"

#include <variant>

#include "model/plan/attention_shape.h"

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

bool HasHead(const RankLayout::Layer& layer, const WeightBinding& weight) {
  const auto head = static_cast<uint64_t>(weight.head);
  return head >= layer.heads.begin && head < layer.heads.end;
}

// What a rank has of the weights of attention. Norms and what IsReplicated() names are whole, like
// everything that these do not name.
std::optional<WeightPart> AttentionPart(const GroupedQueryAttention& attention,
                                        const RankLayout& layout, const RankLayout::Layer& layer,
                                        const WeightBinding& weight) {
  const uint64_t dim = attention.head_dim;
  const bool spread_norm = attention.qk_norm == QkNorm::kFullWidth;
  switch (weight.role) {
    case WeightRole::kQuery:
      return Rows(weight, Times(layer.heads, attention.output_gate ? 2 * dim : dim));
    case WeightRole::kKey:
    case WeightRole::kValue:
      return Rows(weight, Times(layer.kv_heads, dim));
    case WeightRole::kQueryBias:
    case WeightRole::kOutput:
      return Cols(weight, Times(layer.heads, dim));
    case WeightRole::kKeyBias:
    case WeightRole::kValueBias:
      return Cols(weight, Times(layer.kv_heads, dim));
    case WeightRole::kQueryNorm:
      return spread_norm ? Cols(weight, Times(layer.heads, dim)) : Whole(weight);
    case WeightRole::kKeyNorm:
      return spread_norm ? Cols(weight, Times(layer.kv_heads, dim)) : Whole(weight);
    case WeightRole::kSinks:
      return Cols(weight, layer.heads);
    case WeightRole::kOutputBias:
      return layout.tp_index == 0 ? Whole(weight) : std::nullopt;
    default:
      return Whole(weight);
  }
}

std::optional<WeightPart> AttentionPart(const LatentAttention& attention, const RankLayout&,
                                        const RankLayout::Layer& layer,
                                        const WeightBinding& weight) {
  switch (weight.role) {
    case WeightRole::kQuery:
      return Rows(weight, Times(layer.heads, attention.query_head_dim()));
    case WeightRole::kKeyUp:
    case WeightRole::kValueUp:
      return HasHead(layer, weight) ? Whole(weight) : std::nullopt;
    case WeightRole::kOutput:
      return Cols(weight, Times(layer.heads, attention.value_head_dim));
    default:
      return Whole(weight);
  }
}

std::optional<WeightPart> AttentionPart(const LightningAttention& attention, const RankLayout&,
                                        const RankLayout::Layer& layer,
                                        const WeightBinding& weight) {
  const uint64_t dim = attention.head_dim;
  switch (weight.role) {
    case WeightRole::kLinearInput:
      return Rows(weight, Times(layer.heads, 3 * dim));
    case WeightRole::kOutputGate:
      return Rows(weight, Times(layer.heads, dim));
    case WeightRole::kLinearNorm:
    case WeightRole::kOutput:
      return Cols(weight, Times(layer.heads, dim));
    default:
      return Whole(weight);
  }
}

std::optional<WeightPart> AttentionPart(const GatedDeltaNet& attention, const RankLayout&,
                                        const RankLayout::Layer& layer,
                                        const WeightBinding& weight) {
  const uint64_t group = attention.values_per_key();
  const Range keys = {layer.heads.begin / group, layer.heads.end / group};
  switch (weight.role) {
    case WeightRole::kLinearInput:
      return Rows(weight, Times(keys, attention.group_rows()));
    case WeightRole::kDeltaGates:
      return Rows(weight, Times(layer.heads, 2));
    case WeightRole::kQueryFilter:
    case WeightRole::kKeyFilter:
      return Rows(weight, Times(keys, attention.key_head_dim));
    case WeightRole::kValueFilter:
      return Rows(weight, Times(layer.heads, attention.value_head_dim));
    case WeightRole::kDecayRate:
    case WeightRole::kDecayBias:
      return Cols(weight, layer.heads);
    case WeightRole::kOutput:
      return Cols(weight, Times(layer.heads, attention.value_head_dim));
    default:
      return Whole(weight);
  }
}

std::optional<WeightPart> LayerPart(const RankLayout& layout, const RankLayout::Layer& layer,
                                    const AttentionSpec& attention, const WeightBinding& weight) {
  switch (weight.role) {
    case WeightRole::kEmbedding:  // a draft layer's
    case WeightRole::kHead:
      return Rows(weight, layout.vocab);
    case WeightRole::kGate:
    case WeightRole::kUp:
      return Rows(weight, FfnColumns(layer, weight));
    case WeightRole::kDown:
    case WeightRole::kGateBias:
    case WeightRole::kUpBias:
      return Cols(weight, FfnColumns(layer, weight));
    case WeightRole::kDownBias: {
      const Range columns = FfnColumns(layer, weight);
      return columns.size() > 0 && columns.begin == 0 ? Whole(weight) : std::nullopt;
    }
    default:
      return std::visit(
          [&](const auto& kind) { return AttentionPart(kind, layout, layer, weight); }, attention);
  }
}

}  // namespace

bool IsReplicated(WeightRole role) {
  return role == WeightRole::kRouter || role == WeightRole::kSharedGate ||
         role == WeightRole::kQueryDown || role == WeightRole::kLatentDown ||
         role == WeightRole::kRopeKey || role == WeightRole::kIndexQuery ||
         role == WeightRole::kIndexKey || role == WeightRole::kIndexWeights ||
         role == WeightRole::kDraftInput;
}

std::optional<WeightPart> PartOf(const RankLayout& layout, const ModelSpec& spec,
                                 const WeightBinding& weight) {
  if (weight.layer < 0) return OuterPart(layout, spec, weight);
  const auto layer = static_cast<uint64_t>(weight.layer);
  if (layer >= spec.layers.size()) {
    if (!layout.last_stage) return std::nullopt;
    const uint64_t draft = layer - spec.layers.size();
    return LayerPart(layout, layout.per_draft_layer[draft], spec.draft_layers[draft].attention,
                     weight);
  }
  if (layer < layout.layers.begin || layer >= layout.layers.end) return std::nullopt;
  return LayerPart(layout, layout.per_layer[layer - layout.layers.begin],
                   spec.layers[layer].attention, weight);
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
