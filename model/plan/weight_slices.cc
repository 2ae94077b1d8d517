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

// Rows of a head in the query projection (and of a KV head in those of keys and values), columns in
// the output projection, and columns in the QK-norms: 0 where all heads share them.
struct HeadDims {
  uint32_t query;
  uint32_t output;
  uint32_t norm;
};

HeadDims HeadDimsOf(const AttentionSpec& attention) {
  const uint32_t output = OutputHeadDim(attention);
  if (const auto* latent = std::get_if<LatentAttention>(&attention)) {
    return {.query = latent->query_head_dim(), .output = output, .norm = 0};
  }
  const QkNorm norm = std::get<GroupedQueryAttention>(attention).qk_norm;
  return {.query = output, .output = output, .norm = norm == QkNorm::kFullWidth ? output : 0};
}

std::optional<WeightPart> LayerPart(const RankLayout& layout, const RankLayout::Layer& layer,
                                    const HeadDims& dims, const WeightBinding& weight) {
  const uint32_t head_dim = dims.query;
  switch (weight.role) {
    case WeightRole::kQuery:
      return Rows(weight, Times(layer.heads, head_dim));
    case WeightRole::kKeyUp:
    case WeightRole::kValueUp:
      return HasHead(layer, weight) ? Whole(weight) : std::nullopt;
    case WeightRole::kKey:
    case WeightRole::kValue:
      return Rows(weight, Times(layer.kv_heads, head_dim));
    case WeightRole::kQueryBias:
      return Cols(weight, Times(layer.heads, head_dim));
    case WeightRole::kOutput:
      return Cols(weight, Times(layer.heads, dims.output));
    case WeightRole::kKeyBias:
    case WeightRole::kValueBias:
      return Cols(weight, Times(layer.kv_heads, head_dim));
    case WeightRole::kQueryNorm:
      return dims.norm == 0 ? Whole(weight) : Cols(weight, Times(layer.heads, dims.norm));
    case WeightRole::kKeyNorm:
      return dims.norm == 0 ? Whole(weight) : Cols(weight, Times(layer.kv_heads, dims.norm));
    case WeightRole::kOutputBias:
      return layout.tp_index == 0 ? Whole(weight) : std::nullopt;
    case WeightRole::kGate:
    case WeightRole::kUp:
      return Rows(weight, FfnColumns(layer, weight));
    case WeightRole::kDown:
      return Cols(weight, FfnColumns(layer, weight));
    default:  // other norms and what IsReplicated() names
      return Whole(weight);
  }
}

}  // namespace

bool IsReplicated(WeightRole role) {
  return role == WeightRole::kRouter || role == WeightRole::kQueryDown ||
         role == WeightRole::kLatentDown || role == WeightRole::kRopeKey ||
         role == WeightRole::kIndexQuery || role == WeightRole::kIndexKey ||
         role == WeightRole::kIndexWeights;
}

std::optional<WeightPart> PartOf(const RankLayout& layout, const ModelSpec& spec,
                                 const WeightBinding& weight) {
  if (weight.layer < 0) return OuterPart(layout, spec, weight);
  const auto layer = static_cast<uint64_t>(weight.layer);
  if (layer < layout.layers.begin || layer >= layout.layers.end) return std::nullopt;
  return LayerPart(layout, layout.per_layer[layer - layout.layers.begin],
                   HeadDimsOf(spec.layers[layer].attention), weight);
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
