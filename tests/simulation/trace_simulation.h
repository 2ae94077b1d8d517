// A trace of requests against the production scheduler and a model of step times: what a cluster
// would do, in minutes of its time per second of ours.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "coordinator/core/scheduler.h"
#include "model/plan/kv_kinds.h"

namespace essor::coordinator {

struct TraceRequest {
  absl::Time arrival;
  uint32_t prefix = 0;         // which of the shared beginnings it has
  uint32_t prefix_tokens = 0;  // of that, at the front of the prompt
  uint32_t prompt_tokens = 1;  // in all
  uint32_t new_tokens = 1;     // after which it ends (EOS)
  uint32_t max_new_tokens = 1;
  uint32_t tenant = 0;
};

// A seeded stream of requests: arrivals are a Poisson process, lengths log-normal.
struct TraceOptions {
  uint64_t seed = 1;
  uint64_t num_requests = 1000;
  double requests_per_second = 10;
  double mean_prompt_tokens = 512;
  double mean_new_tokens = 128;
  uint32_t num_prefixes = 32;
  double prefix_share = 0.5;  // of the requests have one
  uint32_t num_tenants = 4;
};
std::vector<TraceRequest> MakeTrace(const TraceOptions& options);

// time = base + per_decode * rows + per_prefill * rows, in the group with most to do.
struct StepCost {
  absl::Duration base = absl::Milliseconds(8);
  absl::Duration per_decode = absl::Microseconds(40);
  absl::Duration per_prefill = absl::Microseconds(60);
};

struct Quantiles {
  absl::Duration p50;
  absl::Duration p99;
  absl::Duration max;
};

struct TraceReport {
  uint64_t num_steps = 0;
  uint64_t num_finished = 0;
  uint64_t num_refused = 0;
  uint64_t generated_tokens = 0;
  uint64_t cached_tokens = 0;
  uint64_t preemptions = 0;
  absl::Duration makespan;
  Quantiles first_token;  // TTFT
  Quantiles gap;          // ITL
  double goodput = 0;     // requests a second within the objectives
  double mean_kv_use = 0;
  double peak_kv_use = 0;
  std::map<std::string, uint64_t> tokens_by_tenant;  // while all tenants had requests waiting
  std::string ToString() const;
};

struct Objectives {
  absl::Duration first_token = absl::Seconds(2);
  absl::Duration gap = absl::Milliseconds(100);  // mean of a request
};

TraceReport RunTrace(const std::vector<TraceRequest>& trace, const Scheduler::Options& options,
                     const model::KvCapacity& capacity, const StepCost& cost,
                     const Objectives& objectives);

}  // namespace essor::coordinator
