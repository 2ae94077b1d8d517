// What `essor plan` has found out, ready to be printed as a table or as JSON.
#pragma once

#include <cstdint>
#include <string>

#include "model/plan/planner.h"
#include "model/spec/model_spec.h"

namespace essor::client {

struct PlanReport {
  std::string model;  // as given
  model::ModelSpec spec;
  DType weights = DType::kBF16;
  uint32_t nodes = 1;
  uint32_t devices_per_node = 1;
  uint64_t device_memory_bytes = 0;
  model::ServingLimits limits;
  model::PlannedInstance instance;
  std::string reason;  // why this plan; one sentence
  model::Hardware hardware;
  model::Workload workload;   // of instance.price
  model::Price price_of_one;  // the same with a batch of one
};

// Tokens that the KV cache holds, all data-parallel groups together.
uint64_t KvTokens(const PlanReport& report);

// Ranks that hold the latents of the same tokens (each holds them whole): tp where the model has
// latent attention, else 1.
uint32_t LatentCopies(const PlanReport& report);

// Lines ending in a newline; ranks with equal shares are one row.
std::string PlanText(const PlanReport& report);
// One object, keys in snake_case, sizes in bytes, every rank on its own.
std::string PlanJson(const PlanReport& report);

}  // namespace essor::client
