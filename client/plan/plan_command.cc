#include "client/plan/plan_command.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "model/plan/byte_size.h"
#include "model/source/model_source.h"

namespace essor::client {
namespace {

absl::Status BadFlag(const char* flag, const std::string& problem) {
  return absl::InvalidArgumentError(absl::StrCat(flag, ": ", problem));
}

absl::Status CheckCount(const char* flag, uint64_t value, uint64_t most) {
  if (value >= 1 && value <= most) return absl::OkStatus();
  return BadFlag(flag, absl::StrCat(value, " is outside 1 to ", most));
}

// The types --weights may name besides "auto".
constexpr DType kNamedWeights[] = {DType::kF32,  DType::kBF16,   DType::kF8E4M3,  DType::kQ8_0,
                                   DType::kQ4_1, DType::kF4E2M1, DType::kOffsetI4};

absl::StatusOr<DType> WeightsOf(const PlanCommand& command) {
  for (const DType dtype : kNamedWeights) {
    if (command.weights == InfoOf(dtype).name) return dtype;
  }
  return model::OpenStoredType(command.model);
}

absl::Status CheckWeights(const std::string& weights) {
  if (weights == "auto") return absl::OkStatus();
  for (const DType dtype : kNamedWeights) {
    if (weights == InfoOf(dtype).name) return absl::OkStatus();
  }
  return BadFlag(
      "--weights",
      absl::StrCat("\"", weights,
                   "\" is not one of auto, f32, bf16, f8_e4m3, q8_0, q4_1, f4_e2m1, i4"));
}

absl::StatusOr<KvType> KvTypeOf(const PlanCommand& command) {
  const std::optional<KvType> type = ParseKvType(command.kv_dtype);
  if (type.has_value()) return *type;
  return BadFlag("--kv-dtype", absl::StrCat("\"", command.kv_dtype,
                                            "\" is not one of float32, bfloat16, fp8, int8"));
}

absl::StatusOr<uint32_t> ContextOf(const PlanCommand& command, const model::ModelSpec& spec) {
  if (command.max_context_tokens == 0) return spec.max_context_tokens;
  ESSOR_RETURN_IF_ERROR(
      CheckCount("--max-context", command.max_context_tokens, spec.max_context_tokens));
  return command.max_context_tokens;
}

// One device of a plan that was given is one rank; a plan may leave devices unused, not want more.
absl::StatusOr<model::PlanChoice> Evaluate(const std::string& text,
                                           const model::PlannerRequest& request) {
  ESSOR_ASSIGN_OR_RETURN(const auto plan, model::ParallelPlan::Parse(text));
  if (plan.NumRanks() > request.num_ranks) {
    return absl::InvalidArgumentError(absl::StrCat("plan ", plan.ToString(), " needs ",
                                                   plan.NumRanks(), " devices, and there are ",
                                                   request.num_ranks));
  }
  model::PlanChoice choice;
  ESSOR_ASSIGN_OR_RETURN(choice.instance, EvaluatePlan(plan, request));
  choice.reason = absl::StrCat("as asked for; it uses ", plan.NumRanks(), " of ", request.num_ranks,
                               " devices and fits");
  return choice;
}

absl::StatusOr<uint64_t> DeviceMemoryOf(const PlanCommand& command) {
  const auto memory = model::ParseByteSize(command.device_memory);
  if (memory.ok()) return memory;
  return BadFlag("--device-memory", std::string(memory.status().message()));
}

}  // namespace

absl::Status CheckPlanCommand(const PlanCommand& command) {
  if (command.model.empty()) return BadFlag("--model", "missing");
  ESSOR_RETURN_IF_ERROR(CheckCount("--nodes", command.nodes, model::kMaxRanks));
  ESSOR_RETURN_IF_ERROR(CheckCount("--devices", command.devices, model::kMaxRanks));
  if (uint64_t{command.nodes} * command.devices > model::kMaxRanks) {
    return BadFlag("--nodes", absl::StrCat(command.nodes, " x ", command.devices,
                                           " devices are more than ", model::kMaxRanks));
  }
  ESSOR_RETURN_IF_ERROR(CheckCount("--max-running-requests", command.max_sequences, 1u << 20));
  ESSOR_RETURN_IF_ERROR(CheckCount("--max-step-tokens", command.max_step_tokens, 1u << 20));
  ESSOR_RETURN_IF_ERROR(CheckCount("--batch", command.batch, 1u << 20));
  ESSOR_RETURN_IF_ERROR(CheckCount("--context", command.context_tokens, 1u << 30));
  ESSOR_RETURN_IF_ERROR(CheckWeights(command.weights));
  ESSOR_RETURN_IF_ERROR(KvTypeOf(command).status());
  ESSOR_RETURN_IF_ERROR(DeviceMemoryOf(command).status());
  return command.plan.empty() ? absl::OkStatus()
                              : model::ParallelPlan::Parse(command.plan).status();
}

absl::StatusOr<PlanReport> MakePlanReport(const PlanCommand& command) {
  ESSOR_RETURN_IF_ERROR(CheckPlanCommand(command));
  PlanReport report;
  report.model = command.model;
  report.nodes = command.nodes;
  report.devices_per_node = command.devices;
  ESSOR_ASSIGN_OR_RETURN(report.device_memory_bytes, DeviceMemoryOf(command));
  ESSOR_ASSIGN_OR_RETURN(report.spec, model::OpenSpec(command.model));
  ESSOR_ASSIGN_OR_RETURN(report.weights, WeightsOf(command));
  ESSOR_ASSIGN_OR_RETURN(const uint32_t context, ContextOf(command, report.spec));
  ESSOR_ASSIGN_OR_RETURN(const KvType kv_type, KvTypeOf(command));
  report.limits = {.max_step_tokens = command.max_step_tokens,
                   .max_sequences = command.max_sequences,
                   .max_context_tokens = context,
                   .kv_type = kv_type};
  report.hardware = model::H200Hardware();
  report.hardware.devices_per_node = command.devices;
  report.workload = {.batch = command.batch,
                     .context_tokens = std::min(command.context_tokens, context)};

  const model::PlannerRequest request{.spec = &report.spec,
                                      .num_ranks = command.nodes * command.devices,
                                      .memory_bytes = report.device_memory_bytes,
                                      .stored = report.weights,
                                      .limits = report.limits,
                                      .hardware = report.hardware,
                                      .workload = report.workload};
  ESSOR_ASSIGN_OR_RETURN(model::PlanChoice choice, command.plan.empty()
                                                       ? ChoosePlan(request)
                                                       : Evaluate(command.plan, request));
  report.instance = std::move(choice.instance);
  report.reason = std::move(choice.reason);
  report.price_of_one = model::PricePlan(
      {.spec = &report.spec,
       .plan = report.instance.plan,
       .ranks = &report.instance.ranks,
       .stored = report.weights,
       .kv_type = kv_type,
       .hardware = report.hardware,
       .workload = {.batch = 1, .context_tokens = report.workload.context_tokens}});
  return report;
}

absl::StatusOr<std::string> RenderPlan(const PlanCommand& command) {
  ESSOR_ASSIGN_OR_RETURN(const PlanReport report, MakePlanReport(command));
  return command.json ? PlanJson(report) : PlanText(report);
}

}  // namespace essor::client
