#include "model/plan/planner.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "model/plan/byte_size.h"

namespace essor::model {
namespace {

// Every plan of exactly `num_ranks` ranks without data parallelism, the plainest first: few stages,
// then tensor before expert parallelism.
std::vector<ParallelPlan> PlansOf(uint32_t num_ranks) {
  std::vector<ParallelPlan> plans;
  for (uint32_t pp = 1; pp <= num_ranks; ++pp) {
    if (num_ranks % pp != 0) continue;
    const uint32_t stage = num_ranks / pp;
    for (uint32_t smaller = 1; smaller <= stage; ++smaller) {
      if (stage % smaller != 0) continue;
      plans.push_back({.pp = pp, .tp = stage, .ep = smaller});
      if (smaller != stage) plans.push_back({.pp = pp, .tp = smaller, .ep = stage});
    }
  }
  return plans;
}

QuantBlock BlockOf(const PlannerRequest& request) {
  return request.quant_block.value_or(QuantBlockOf(request.stored));
}

MemoryRequest RequestFor(const PlannerRequest& request, const RankLayout& layout) {
  return {.spec = request.spec,
          .layout = &layout,
          .stored = request.stored,
          .fp32 = request.fp32,
          .limits = request.limits,
          .memory_bytes = request.memory_bytes};
}

// What the fullest rank needs at least.
uint64_t LeastBytesOf(const ParallelPlan& plan, const PlannerRequest& request) {
  uint64_t most = 0;
  for (const RankLayout& layout : LayoutsOf(plan, *request.spec, BlockOf(request))) {
    most = std::max(most, LeastBytes(RequestFor(request, layout)));
  }
  return most;
}

// The most tokens of one sequence with which the plan fits, a multiple of the KV block, up to the
// context that was asked for; 0 when it fits with none.
uint32_t LargestContext(const ParallelPlan& plan, PlannerRequest request) {
  const uint32_t block = std::max(1u, request.limits.block_tokens);
  const uint32_t wanted = request.limits.max_context_tokens == 0
                              ? request.spec->max_context_tokens
                              : request.limits.max_context_tokens;
  uint32_t fitting = 0;  // in blocks
  uint32_t too_many = (wanted + block - 1) / block + 1;
  while (too_many - fitting > 1) {
    const uint32_t middle = fitting + (too_many - fitting) / 2;
    request.limits.max_context_tokens = std::min(wanted, middle * block);
    (LeastBytesOf(plan, request) <= request.memory_bytes ? fitting : too_many) = middle;
  }
  return std::min(wanted, fitting * block);
}

// What ChoosePlan has seen so far.
struct Candidates {
  std::vector<PlannedInstance> fitting;
  std::optional<ParallelPlan> leanest;  // of those that do not fit
  uint64_t leanest_bytes = 0;
  absl::Status leanest_status;
  absl::Status first_refusal;
};

absl::Status Consider(const ParallelPlan& plan, const PlannerRequest& request,
                      Candidates& candidates) {
  const absl::Status valid = ValidatePlan(plan, *request.spec, BlockOf(request));
  if (!valid.ok()) {
    if (candidates.first_refusal.ok()) candidates.first_refusal = valid;
    return absl::OkStatus();
  }
  absl::StatusOr<PlannedInstance> instance = EvaluatePlan(plan, request);
  if (instance.ok()) {
    candidates.fitting.push_back(*std::move(instance));
    return absl::OkStatus();
  }
  if (!absl::IsResourceExhausted(instance.status())) return instance.status();
  const uint64_t bytes = LeastBytesOf(plan, request);
  if (!candidates.leanest.has_value() || bytes < candidates.leanest_bytes) {
    candidates.leanest = plan;
    candidates.leanest_bytes = bytes;
    candidates.leanest_status = instance.status();
  }
  return absl::OkStatus();
}

std::string Speed(const PlannedInstance& instance) {
  return absl::StrFormat("%s: %.4g tokens/s", instance.plan.ToString(),
                         instance.price.tokens_per_second);
}

std::string ReasonFor(const std::vector<PlannedInstance>& best_first,
                      const PlannerRequest& request) {
  if (best_first.size() == 1) {
    return absl::StrFormat("%s is the only plan over %d ranks that is valid and fits",
                           best_first[0].plan.ToString(), request.num_ranks);
  }
  return absl::StrFormat(
      "%s is predicted to be fastest of the %d plans over %d ranks that fit, for a batch of %d "
      "with "
      "%d tokens of context each (%s; next %s)",
      best_first[0].plan.ToString(), best_first.size(), request.num_ranks, request.workload.batch,
      request.workload.context_tokens, Speed(best_first[0]), Speed(best_first[1]));
}

// A block id means the same block on every rank, so all have as many as the poorest has room for.
void ShareBlocks(PlannedInstance& instance) {
  instance.num_blocks = instance.memory.front().num_blocks;
  for (const MemoryPlan& memory : instance.memory) {
    instance.num_blocks = std::min(instance.num_blocks, memory.num_blocks);
  }
  for (MemoryPlan& memory : instance.memory) {
    memory.num_blocks = instance.num_blocks;
    memory.kv_bytes = instance.num_blocks * memory.block_bytes;
  }
}

}  // namespace

absl::StatusOr<PlannedInstance> EvaluatePlan(const ParallelPlan& plan,
                                             const PlannerRequest& request) {
  const QuantBlock quant_block = BlockOf(request);
  ESSOR_RETURN_IF_ERROR(ValidatePlan(plan, *request.spec, quant_block));
  PlannedInstance instance;
  instance.plan = plan;
  instance.ranks = LayoutsOf(plan, *request.spec, quant_block);
  for (const RankLayout& layout : instance.ranks) {
    absl::StatusOr<MemoryPlan> memory = PlanMemory(RequestFor(request, layout));
    if (absl::IsResourceExhausted(memory.status())) {
      return absl::ResourceExhaustedError(
          absl::StrCat(plan.ToString(), " does not fit: ", std::string(memory.status().message())));
    }
    ESSOR_RETURN_IF_ERROR(memory.status());
    instance.memory.push_back(*memory);
  }
  ShareBlocks(instance);
  instance.price = PricePlan({.spec = request.spec,
                              .plan = plan,
                              .ranks = &instance.ranks,
                              .stored = request.stored,
                              .fp32 = request.fp32,
                              .kv_type = request.limits.kv_type,
                              .hardware = request.hardware,
                              .workload = request.workload});
  return instance;
}

absl::StatusOr<PlanChoice> ChoosePlan(const PlannerRequest& request) {
  if (request.num_ranks < 1 || request.num_ranks > kMaxRanks) {
    return absl::InvalidArgumentError(
        absl::StrCat(request.num_ranks, " ranks: a plan has 1 to ", kMaxRanks));
  }
  Candidates candidates;
  for (const ParallelPlan& plan : PlansOf(request.num_ranks)) {
    ESSOR_RETURN_IF_ERROR(Consider(plan, request, candidates));
  }
  if (!candidates.fitting.empty()) {
    // Stable: of equally fast plans the plainest, see PlansOf().
    std::stable_sort(candidates.fitting.begin(), candidates.fitting.end(),
                     [](const PlannedInstance& a, const PlannedInstance& b) {
                       return a.price.tokens_per_second > b.price.tokens_per_second;
                     });
    std::string reason = ReasonFor(candidates.fitting, request);
    return PlanChoice{.instance = std::move(candidates.fitting.front()),
                      .reason = std::move(reason)};
  }
  if (candidates.leanest.has_value()) {
    const uint32_t context = LargestContext(*candidates.leanest, request);
    return absl::ResourceExhaustedError(absl::StrCat(
        "no plan over ", request.num_ranks, " ranks of ", FormatByteSize(request.memory_bytes),
        " holds this model; the leanest, ", std::string(candidates.leanest_status.message()),
        context == 0 ? "" : absl::StrCat("; with a context of ", context, " tokens it fits")));
  }
  return absl::InvalidArgumentError(absl::StrCat("no plan divides this model over ",
                                                 request.num_ranks, " ranks: for example ",
                                                 std::string(candidates.first_refusal.message())));
}

}  // namespace essor::model
