// ESSOR_TRACE_REQUESTS=1000000 makes the steady trace as long.
#include "tests/simulation/trace_simulation.h"

#include <cstdlib>
#include <iostream>

#include "absl/strings/numbers.h"
#include "gtest/gtest.h"

namespace essor::coordinator {
namespace {

Scheduler::Options ClusterOptions() {
  return {.max_running_requests = 256,
          .max_queued_requests = 100'000,
          .num_slots = 256,
          .max_step_tokens = 2048,
          .block_tokens = 16};
}

uint64_t RequestsAskedFor() {
  const char* const text = std::getenv("ESSOR_TRACE_REQUESTS");
  uint64_t requests = 20'000;
  if (text != nullptr && !absl::SimpleAtoi(text, &requests)) {
    ADD_FAILURE() << "not a number: " << text;
  }
  return requests;
}

// A cluster that keeps up: everything ends, within what its step times allow.
TEST(TraceSimulationTest, SteadyLoad) {
  const auto trace = MakeTrace({.num_requests = RequestsAskedFor(),
                                .requests_per_second = 12,
                                .mean_prompt_tokens = 400,
                                .mean_new_tokens = 100});
  const TraceReport report =
      RunTrace(trace, ClusterOptions(), {.num_blocks = 20'000}, StepCost(), Objectives());
  std::cout << report.ToString() << "\n";
  EXPECT_EQ(report.num_finished, trace.size());
  EXPECT_EQ(report.num_refused, 0u);
  EXPECT_GT(report.cached_tokens, trace.size() * 20);
  // Prompts may double the time of a step and no more; a gap is at most two steps and what the
  // model of step times is wrong by at first.
  EXPECT_LT(report.gap.p99, 4 * report.gap.p50);
}

// Ten times more than it can serve: the queue's bound refuses the rest, and what is admitted is
// served as fast as ever.
TEST(TraceSimulationTest, Overload) {
  const auto trace = MakeTrace({.num_requests = 20'000,
                                .requests_per_second = 300,
                                .mean_prompt_tokens = 400,
                                .mean_new_tokens = 100});
  Scheduler::Options options = ClusterOptions();
  options.max_queued_requests = 64;
  const TraceReport report =
      RunTrace(trace, options, {.num_blocks = 20'000}, StepCost(), Objectives());
  std::cout << report.ToString() << "\n";
  EXPECT_EQ(report.num_finished + report.num_refused, trace.size());
  EXPECT_GT(report.num_refused, trace.size() / 2);
  EXPECT_LT(report.gap.p99, absl::Milliseconds(200));
  EXPECT_LT(report.first_token.max, absl::Seconds(30));
}

// Memory for a fifth of what would run: sequences are put back, nothing is lost.
TEST(TraceSimulationTest, ShortMemory) {
  const auto trace = MakeTrace({.num_requests = 3'000,
                                .requests_per_second = 12,
                                .mean_prompt_tokens = 200,
                                .mean_new_tokens = 400});
  Scheduler::Options options = ClusterOptions();
  options.reserve_new_tokens = 16;
  const TraceReport report =
      RunTrace(trace, options, {.num_blocks = 1'000}, StepCost(), Objectives());
  std::cout << report.ToString() << "\n";
  EXPECT_EQ(report.num_finished + report.num_refused, trace.size());
  EXPECT_GT(report.preemptions, 100u);
  EXPECT_GT(report.peak_kv_use, 0.95);
}

// Tenants that all have requests waiting get what their weights say, whatever each asks for: t0
// asks as often as the others together.
TEST(TraceSimulationTest, TenantsShareByWeight) {
  auto trace = MakeTrace({.num_requests = 8'000,
                          .requests_per_second = 400,
                          .mean_prompt_tokens = 50,
                          .mean_new_tokens = 100,
                          .prefix_share = 0,
                          .num_tenants = 3});
  for (size_t i = 0; i < trace.size(); i += 2) trace[i].tenant = 0;
  Scheduler::Options options = ClusterOptions();
  options.max_running_requests = options.num_slots = 32;
  options.tenant_weights = {{"t2", 2.0}};
  TraceReport report = RunTrace(trace, options, {.num_blocks = 20'000}, StepCost(), Objectives());
  std::cout << report.ToString() << "\n";
  // Counted while all wait, until the smallest tenant has none left; so shares are those of the
  // time that all were there, with an error of what runs at once (32 requests of some 250 units of
  // work against thousands of requests).
  const double t0 = static_cast<double>(report.tokens_by_tenant["t0"]);
  const double t1 = static_cast<double>(report.tokens_by_tenant["t1"]);
  const double t2 = static_cast<double>(report.tokens_by_tenant["t2"]);
  EXPECT_GT(t2, 0);
  EXPECT_NEAR(t1 / t0, 1.0, 0.1);
  EXPECT_NEAR(t2 / t0, 2.0, 0.2);
}

}  // namespace
}  // namespace essor::coordinator
