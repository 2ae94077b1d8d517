// From a model and a few options to the plan, the limits and the memory of an instance.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "coordinator/core/membership.h"
#include "model/plan/memory_plan.h"
#include "model/plan/parallel_plan.h"
#include "model/source/model_source.h"

namespace essor::coordinator {

struct PlanningOptions {
  std::string plan;            // plan grammar, or empty: chosen
  uint32_t num_workers = 0;    // 0: one per rank of the plan, or one without a plan
  std::string dtype = "auto";  // auto, float32, bfloat16
  // auto, or a type of common/kv_type.h; auto = float32 on CPUs.
  std::string kv_dtype = "auto";
  std::string draft_layers = "skip";  // skip, load
  model::ServingLimits limits;        // max_context_tokens 0 = the model's
  uint64_t device_memory_bytes = 0;   // per rank, a cap on what workers offer; 0 = no cap
};

struct InstancePlan {
  model::ParallelPlan plan;
  uint32_t num_workers = 1;
  model::ServingLimits limits;  // complete
};

// InvalidArgument with one sentence when the plan cannot serve the model, when there are more
// workers than ranks, when a limit contradicts the model, or for an unknown kv_dtype. Without a
// plan the planner chooses one with a rank per worker.
absl::StatusOr<InstancePlan> PlanInstance(const PlanningOptions& options,
                                          const model::ModelSource& source);

// KV blocks that fit a rank with the given memory. The result borrows nothing: slices are computed
// once, here.
Membership::CapacityOf MakeCapacity(const PlanningOptions& options, const InstancePlan& instance,
                                    const model::ModelSource& source);

}  // namespace essor::coordinator
