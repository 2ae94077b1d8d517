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

// What passes between data-parallel groups for the experts of one layer
// (worker/layers/expert_exchange.h); all 0 where there is but one group or there are no experts.
struct ExpertExchangeSizes {
  // Rows of [hidden] that a rank has of one kind at a time (sends, receives, computes): as many as
  // a step has, but at least one token of every rank with all its experts.
  uint64_t rows = 0;
  // Chosen experts of all tokens that can be in a step of all groups.
  uint64_t choices = 0;
};
// The same for all ranks of an instance.
ExpertExchangeSizes ExpertExchangeSizesOf(const ModelSpec& spec, const RankLayout& layout,
                                          uint32_t max_step_tokens);

}  // namespace essor::model
