// Choosing a plan, and saying why.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/plan/cost_model.h"
#include "model/plan/memory_plan.h"
#include "model/plan/parallel_plan.h"

namespace essor::model {

struct PlannerRequest {
  const ModelSpec* spec;
  uint32_t num_ranks = 1;
  uint64_t memory_bytes = 0;  // what each rank may use
  DType stored = DType::kBF16;
  // Where columns may be cut, when the checkpoint is open; else as `stored` implies.
  std::optional<QuantBlock> quant_block = {};
  bool fp32 = false;
  ServingLimits limits = {};
  Hardware hardware = {};
  Workload workload = {};
};

// One plan, divided, measured against the memory and priced.
struct PlannedInstance {
  ParallelPlan plan;
  std::vector<RankLayout> ranks;
  // Per rank; all with `capacity`, which is what the poorest rank has room for.
  std::vector<MemoryPlan> memory;
  KvCapacity capacity;
  Price price;
};

// Errors of ValidatePlan and PlanMemory (which name plan and rank).
absl::StatusOr<PlannedInstance> EvaluatePlan(const ParallelPlan& plan,
                                             const PlannerRequest& request);

struct PlanChoice {
  PlannedInstance instance;
  std::string reason;  // one sentence
};

// Of all plans that use exactly `num_ranks` ranks, are valid and fit, the one predicted to decode
// the most tokens a second under `workload`. Data-parallel groups, of which a lone sequence can use
// but one, are considered for models with experts only, with dp x tp ranks a stage and experts as
// whole as can be, and have to promise a quarter more than the best plan without them.
// InvalidArgument with one sentence when no plan is valid,
// ResourceExhausted when none fits.
absl::StatusOr<PlanChoice> ChoosePlan(const PlannerRequest& request);

}  // namespace essor::model
