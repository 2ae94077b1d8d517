// Which part of which checkpoint tensor a rank holds: computed once here, used by the loader, by
// the memory plan and by `essor plan`.
#pragma once

#include <optional>
#include <vector>

#include "model/plan/parallel_plan.h"
#include "model/spec/model_spec.h"

namespace essor::model {

// The part of a weight that a rank holds.
struct WeightPart {
  Range rows;
  Range cols;
  bool operator==(const WeightPart&) const = default;
};

// What the rank of `layout` holds of `weight`, or nothing. Vectors ([1, n]) are cut by columns. The
// output bias is held by the rank with tp_index 0 alone, an expert's down bias by the rank that has
// the expert's first columns: they are added once, before the sum over the group. Norms, routers,
// indexers and the projections to latents are held whole by every rank of the layer's stage; what
// belongs to one head by the ranks that have the head (of QK-norms over the full width, the head's
// columns). Draft layers are cut like others, on the last stage; their embedding and head like the
// model's.
std::optional<WeightPart> PartOf(const RankLayout& layout, const ModelSpec& spec,
                                 const WeightBinding& weight);

// Matrices that every rank of a layer's stage holds whole.
bool IsReplicated(WeightRole role);

// The rows and columns of one weight that a rank holds, in the numbering of the whole weight
// (binding.rows x binding.cols). Always a non-empty rectangle.
struct WeightSlice {
  WeightBinding binding;
  Range rows;
  Range cols;
};

// In the order of `bindings` (layer order, experts inside a layer ascending). Weights of which the
// rank holds nothing do not appear. With tied embeddings the embedding slice also serves as head on
// the last stage (it appears once per rank). `bindings` are those of the whole model.
std::vector<WeightSlice> SlicesOf(const RankLayout& layout, const ModelSpec& spec,
                                  const std::vector<WeightBinding>& bindings);

}  // namespace essor::model
