#include "coordinator/planning.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "model/plan/planner.h"
#include "model/plan/weight_slices.h"

namespace essor::coordinator {
namespace {

// Before the workers have joined nobody knows their memory; the join checks it.
constexpr uint64_t kUnknownMemory = uint64_t{1} << 60;

absl::StatusOr<model::ParallelPlan> ChoosePlanFor(const PlanningOptions& options,
                                                  const model::ModelSource& source,
                                                  const model::ServingLimits& limits) {
  const uint64_t cap = options.device_memory_bytes;
  ESSOR_ASSIGN_OR_RETURN(const model::PlanChoice choice,
                         model::ChoosePlan({.spec = &source.spec,
                                            .num_ranks = std::max(options.num_workers, 1u),
                                            .memory_bytes = cap == 0 ? kUnknownMemory : cap,
                                            .stored = source.stored,
                                            .quant_block = model::QuantBlockOf(source.bindings),
                                            .fp32 = options.dtype == "float32",
                                            .limits = limits}));
  spdlog::info("plan chosen: {}", choice.reason);
  return choice.instance.plan;
}

absl::StatusOr<KvType> KvTypeOf(const std::string& kv_dtype) {
  // The rounding of keys and values to bfloat16 would be the largest error of a bfloat16 model, and
  // on CPUs memory for KV is plentiful beside that for weights.
  if (kv_dtype == "auto") return KvType::kFloat32;
  const std::optional<KvType> type = ParseKvType(kv_dtype);
  if (type.has_value()) return *type;
  return absl::InvalidArgumentError(absl::StrCat(
      "kv_dtype: \"", kv_dtype, "\" is none of auto, float32, bfloat16, fp8 and int8"));
}

// What one rank's memory plan needs, kept for the life of the coordinator.
struct RankShape {
  model::RankLayout layout;
  std::vector<model::WeightSlice> slices;
};

}  // namespace

absl::StatusOr<InstancePlan> PlanInstance(const PlanningOptions& options,
                                          const model::ModelSource& source) {
  const model::ModelSpec& spec = source.spec;
  InstancePlan instance;
  instance.limits = options.limits;
  ESSOR_ASSIGN_OR_RETURN(instance.limits.kv_type, KvTypeOf(options.kv_dtype));
  uint32_t& context = instance.limits.max_context_tokens;
  if (context > spec.max_context_tokens) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a context of ", context, " tokens exceeds the model's ", spec.max_context_tokens));
  }
  if (context == 0) context = spec.max_context_tokens;
  if (options.plan.empty()) {
    ESSOR_ASSIGN_OR_RETURN(instance.plan, ChoosePlanFor(options, source, instance.limits));
  } else {
    ESSOR_ASSIGN_OR_RETURN(instance.plan, model::ParallelPlan::Parse(options.plan));
    ESSOR_RETURN_IF_ERROR(ValidatePlan(instance.plan, spec, model::QuantBlockOf(source.bindings)));
  }
  const uint32_t num_ranks = instance.plan.NumRanks();
  instance.num_workers = options.num_workers == 0 ? num_ranks : options.num_workers;
  if (instance.num_workers > num_ranks) {
    return absl::InvalidArgumentError(absl::StrCat("the plan ", instance.plan.ToString(), " has ",
                                                   num_ranks, " ranks for ", instance.num_workers,
                                                   " workers: each needs at least one"));
  }
  return instance;
}

Membership::CapacityOf MakeCapacity(const PlanningOptions& options, const InstancePlan& instance,
                                    const model::ModelSource& source) {
  auto shapes = std::make_shared<std::vector<RankShape>>();
  const model::QuantBlock quant_block = model::QuantBlockOf(source.bindings);
  for (uint32_t rank = 0; rank < instance.plan.NumRanks(); ++rank) {
    RankShape shape{LayoutOf(instance.plan, source.spec, rank, quant_block), {}};
    shape.slices = SlicesOf(shape.layout, source.spec, source.bindings);
    shapes->push_back(std::move(shape));
  }
  auto spec = std::make_shared<model::ModelSpec>(source.spec);
  return [shapes, spec, stored = source.stored, limits = instance.limits,
          fp32 = options.dtype == "float32", cap = options.device_memory_bytes](
             uint32_t rank, uint64_t memory_bytes) -> absl::StatusOr<model::KvCapacity> {
    const RankShape& shape = (*shapes)[rank];
    const model::MemoryRequest request{
        .spec = spec.get(),
        .layout = &shape.layout,
        .slices = &shape.slices,
        .stored = stored,
        .fp32 = fp32,
        .limits = limits,
        .memory_bytes = cap == 0 ? memory_bytes : std::min(cap, memory_bytes)};
    ESSOR_ASSIGN_OR_RETURN(const model::MemoryPlan plan, PlanMemory(request));
    return plan.capacity;
  };
}

}  // namespace essor::coordinator
