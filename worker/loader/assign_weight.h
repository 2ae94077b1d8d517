// Which member of RankWeights a weight is.
#pragma once

#include "kernels/packed_matrix.h"
#include "model/plan/parallel_plan.h"
#include "model/spec/model_spec.h"
#include "worker/loader/rank_weights.h"

namespace essor::worker {

// Sets the member that `binding` names: to `matrix`, or where its role is a vector's to `vector`,
// both in the storage of `weights`. The layers, draft layers and experts of the rank of `layout`
// must exist already; the weights of heads must come in ascending order.
void AssignWeight(const model::WeightBinding& binding, const model::RankLayout& layout,
                  const kernels::PackedMatrix& matrix, const float* vector, RankWeights& weights);

}  // namespace essor::worker
