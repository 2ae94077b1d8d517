#include "model/plan/planner.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "model/plan/byte_size.h"

namespace essor::model {
namespace {

std::vector<uint32_t> DivisorsOf(uint32_t number) {
  std::vector<uint32_t> divisors;
  for (uint32_t divisor = 1; divisor <= number; ++divisor) {
    if (number % divisor == 0) divisors.push_back(divisor);
  }
  return divisors;
}

// The fewest experts of a layer that has some; 0 where none has.
uint32_t FewestExperts(const ModelSpec& spec) {
  uint32_t fewest = 0;
  for (const LayerSpec& layer : spec.layers) {
    const auto* moe = std::get_if<MoeFfn>(&layer.ffn);
    if (moe != nullptr && (fewest == 0 || moe->num_experts < fewest)) fewest = moe->num_experts;
  }
  return fewest;
}

// Plans of one stage of `ranks` with data-parallel groups, few groups first: attention without
// replicas, and experts as whole as they can be, since every slice of one is another copy of its
// tokens' rows on the way. None without experts: such groups would share nothing.
void AddGroupedPlans(uint32_t pp, uint32_t ranks, const ModelSpec& spec,
                     std::vector<ParallelPlan>& plans) {
  const uint32_t num_experts = FewestExperts(spec);
  if (num_experts == 0) return;
  uint32_t ep = 1;
  for (const uint32_t divisor : DivisorsOf(ranks)) {
    if (divisor <= num_experts) ep = divisor;
  }
  for (const uint32_t dp : DivisorsOf(ranks)) {
    if (dp > 1) plans.push_back({.pp = pp, .dp = dp, .tp = ranks / dp, .ep = ep});
  }
}

// Every plan of exactly `num_ranks` ranks that is worth a look, the plainest first: few stages,
// then tensor before expert parallelism before data-parallel groups.
std::vector<ParallelPlan> PlansOf(uint32_t num_ranks, const ModelSpec& spec) {
  std::vector<ParallelPlan> plans;
  for (const uint32_t pp : DivisorsOf(num_ranks)) {
    const uint32_t stage = num_ranks / pp;
    for (const uint32_t smaller : DivisorsOf(stage)) {
      plans.push_back({.pp = pp, .tp = stage, .ep = smaller});
      if (smaller != stage) plans.push_back({.pp = pp, .tp = smaller, .ep = stage});
    }
    AddGroupedPlans(pp, stage, spec, plans);
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

// What plans are compared by: tokens per second.
double Merit(const PlannedInstance& instance) {
  constexpr double kGroupsMustGain = 1.25;
  const double speed = instance.price.tokens_per_second;
  return instance.plan.dp > 1 ? speed / kGroupsMustGain : speed;
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
  const PlannedInstance& chosen = best_first[0];
  const auto fastest = std::max_element(
      best_first.begin(), best_first.end(), [](const PlannedInstance& a, const PlannedInstance& b) {
        return a.price.tokens_per_second < b.price.tokens_per_second;
      });
  const bool slower_than_groups = fastest->price.tokens_per_second > chosen.price.tokens_per_second;
  return absl::StrFormat(
      "%s is predicted to be fastest of the %d plans over %d ranks that fit%s, for a batch of %d "
      "with %d tokens of context each (%s; next %s)",
      chosen.plan.ToString(), best_first.size(), request.num_ranks,
      slower_than_groups
          ? absl::StrCat(" but for data-parallel groups, which gain less than a quarter (",
                         Speed(*fastest), ")")
          : "",
      request.workload.batch, request.workload.context_tokens, Speed(chosen), Speed(best_first[1]));
}

// A block id means the same block on every rank, so all have as many as the poorest has room for.
void ShareCapacity(const ModelSpec& spec, PlannedInstance& instance) {
  instance.capacity = instance.memory.front().capacity;
  for (const MemoryPlan& memory : instance.memory) {
    instance.capacity = Smaller(instance.capacity, memory.capacity);
  }
  for (size_t i = 0; i < instance.memory.size(); ++i) {
    LimitTo(instance.capacity, instance.ranks[i], spec, instance.memory[i]);
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
  ShareCapacity(*request.spec, instance);
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
  for (const ParallelPlan& plan : PlansOf(request.num_ranks, *request.spec)) {
    ESSOR_RETURN_IF_ERROR(Consider(plan, request, candidates));
  }
  if (!candidates.fitting.empty()) {
    // Stable: of equally good plans the plainest, see PlansOf().
    std::stable_sort(
        candidates.fitting.begin(), candidates.fitting.end(),
        [](const PlannedInstance& a, const PlannedInstance& b) { return Merit(a) > Merit(b); });
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
