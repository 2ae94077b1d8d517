// The logic of `essor plan`: how a model would be divided over a cluster, from its config alone.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "client/plan/plan_report.h"

namespace essor::client {

// The flags, as given.
struct PlanCommand {
  std::string model = {};  // Hugging Face directory, config.json, or .gguf
  uint32_t nodes = 1;
  uint32_t devices = 1;                // per node
  std::string device_memory = "80GB";  // see ParseByteSize
  std::string plan = {};               // plan grammar; empty: chosen
  std::string weights = "auto";        // auto, f32, bf16, f8_e4m3, q8_0, q4_1, f4_e2m1, i4
  std::string kv_dtype = "bfloat16";   // a type of common/kv_type.h
  uint32_t max_context_tokens = 0;     // 0: the model's
  uint32_t max_sequences = 64;
  uint32_t max_step_tokens = 2048;
  uint32_t batch = 16;             // of the predicted speed
  uint32_t context_tokens = 4096;  // likewise
  bool json = false;
};

// What is wrong with the flags by themselves (bad usage): InvalidArgument naming the flag, for the
// plan its grammar. Nothing is read.
absl::Status CheckPlanCommand(const PlanCommand& command);

// The text for stdout. InvalidArgument naming the flag for a bad value, and with one sentence for
// an impossible plan; errors of OpenSpec; ResourceExhausted with one sentence and the missing bytes
// when the model does not fit.
absl::StatusOr<std::string> RenderPlan(const PlanCommand& command);

// The same before printing.
absl::StatusOr<PlanReport> MakePlanReport(const PlanCommand& command);

}  // namespace essor::client
