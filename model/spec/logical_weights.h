// Every weight a ModelSpec implies, with its shape: the one place where shapes are derived. Binding
// to a checkpoint, counting parameters, slicing and the memory plan all start from this list.
#pragma once

#include <cstdint>
#include <vector>

#include "model/spec/model_spec.h"

namespace essor::model {

// All weights in execution order: embedding; layers ascending, experts inside a layer ascending;
// final norm; head (absent when tied); draft layers. `tensor` is empty.
std::vector<WeightBinding> LogicalWeights(const ModelSpec& spec);

// Those outside the layers, in the same order.
std::vector<WeightBinding> OuterWeights(const ModelSpec& spec);

// Those of one layer (of a draft layer everything that it may have), with the first `max_experts`
// experts only: experts are alike, so counting needs one of them.
std::vector<WeightBinding> LayerWeights(const ModelSpec& spec, uint32_t layer,
                                        uint32_t max_experts = UINT32_MAX);

}  // namespace essor::model
