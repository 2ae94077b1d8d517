// Widths of the rows of scratch that the layers of a rank share: what worker/layers allocates and
// what the memory plan counts.
#pragma once

#include <cstdint>

#include "model/plan/attention_shape.h"
#include "model/plan/parallel_plan.h"
#include "model/spec/model_spec.h"

namespace essor::model {

// Of the widest layer each, in elements of a row.
struct ScratchWidths {
  AttentionWidths attention = {};
  uint64_t experts = 0;
  uint64_t top_k = 0;
  uint64_t shared = 0;  // the output of a shared expert
};
ScratchWidths ScratchWidthsOf(const ModelSpec& spec, const RankLayout& layout);

}  // namespace essor::model
