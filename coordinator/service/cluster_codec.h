// Between the messages of essor.v1.Cluster and the structs of coordinator/core. No decisions.
#pragma once

#include <string>

#include "coordinator/core/membership.h"
#include "coordinator/core/step.h"
#include "essor/v1/cluster.pb.h"

namespace essor::coordinator {

// What is the same in every Assign of this coordinator.
struct AssignmentConstants {
  std::string model_path;
  std::string model_fingerprint;
  std::string plan;  // every factor written
  std::string dtype;
  std::string draft_layers = "skip";
  uint32_t block_tokens = 16;
  uint32_t max_step_tokens = 512;
  uint32_t max_sequences = 64;
  uint32_t max_context_tokens = 0;
  std::string kv_dtype = "bfloat16";
};

WorkerDescription FromProto(const v1::Hello& hello);
v1::CoordinatorMessage ToProto(const SendAssign& action, const AssignmentConstants& constants);
v1::CoordinatorMessage ToProto(const SendConnect& action, absl::Duration timeout);
v1::CoordinatorMessage ToProto(const SendRelease& action);
v1::CoordinatorMessage ToProto(const Step& step, Epoch epoch, absl::Duration timeout);
// InvalidArgument when the parallel arrays differ in length.
absl::StatusOr<StepOutcome> FromProto(v1::StepResult* result);

}  // namespace essor::coordinator
