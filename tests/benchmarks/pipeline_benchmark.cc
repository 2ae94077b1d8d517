// Decode of one instance in several stages, without coordinator: tokens a second with one step
// under way at a time, and with as many as the plan allows.
//
//   pipeline_benchmark --model DIR_OR_GGUF [--plan pp=2 --threads 1] [--sequences 8] [--rounds 5]
//                      [--json]
//
// The sequences are divided into one group a stage; each step decodes one group, in turn. The bound
// is the number of stages: with one step at a time all but one of them wait.
#include <algorithm>
#include <cstdio>
#include <deque>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "common/status_macros.h"
#include "model/plan/parallel_plan.h"
#include "tests/benchmarks/machine_limits.h"
#include "tests/support/local_instance.h"

namespace essor::benchmarks {
namespace {

constexpr uint32_t kPromptTokens = 16;
constexpr uint32_t kTokensEach = 32;
constexpr uint32_t kBlockTokens = 16;
constexpr uint32_t kContextTokens = 64;

struct Flags {
  std::string model;
  std::string plan = "pp=2";
  uint32_t threads = 1;  // per rank
  uint32_t sequences = 8;
  uint32_t rounds = 5;
  bool json = false;
};

// One group of slots for each stage.
std::vector<std::vector<uint32_t>> Groups(uint32_t sequences, uint32_t stages) {
  std::vector<std::vector<uint32_t>> groups(stages);
  for (uint32_t slot = 0; slot < sequences; ++slot) groups[slot % stages].push_back(slot);
  return groups;
}

absl::Status StartAll(testing::LocalInstance& instance, uint32_t sequences) {
  worker::StepInput step;
  for (uint32_t slot = 0; slot < sequences; ++slot) {
    step.starts.push_back({.slot = slot, .sampling = {}});
    step.sequences.push_back({.slot = slot, .tokens = {}});
    for (uint32_t i = 0; i < kPromptTokens; ++i) {
      step.sequences.back().tokens.push_back((1 + slot * 37 + i * 11) % instance.spec().vocab_size);
    }
    std::vector<uint32_t> blocks;
    constexpr uint32_t kBlocksEach = kContextTokens / kBlockTokens;
    for (uint32_t i = 0; i < kBlocksEach; ++i) blocks.push_back(slot * kBlocksEach + i);
    instance.AddBlocks(blocks, &step.sequences.back());
  }
  return instance.Run(step).status();
}

// Decodes kTokensEach tokens of every sequence; tokens a second.
absl::StatusOr<double> Decode(testing::LocalInstance& instance,
                              const std::vector<std::vector<uint32_t>>& groups, uint32_t sequences,
                              size_t in_flight_max) {
  ESSOR_RETURN_IF_ERROR(StartAll(instance, sequences));
  std::deque<StepId> in_flight;
  const double start = SecondsNow();
  for (uint32_t token = 0; token < kTokensEach; ++token) {
    for (const std::vector<uint32_t>& group : groups) {
      worker::StepInput step;
      for (const uint32_t slot : group) step.sequences.push_back({.slot = slot});
      if (in_flight.size() == in_flight_max) {
        ESSOR_RETURN_IF_ERROR(instance.Await(in_flight.front()).status());
        in_flight.pop_front();
      }
      ESSOR_ASSIGN_OR_RETURN(const StepId submitted, instance.Submit(step));
      in_flight.push_back(submitted);
    }
  }
  for (const StepId step : in_flight) ESSOR_RETURN_IF_ERROR(instance.Await(step).status());
  const double seconds = SecondsNow() - start;
  worker::StepInput release;
  for (uint32_t slot = 0; slot < sequences; ++slot) release.release_slots.push_back(slot);
  ESSOR_RETURN_IF_ERROR(instance.Run(release).status());
  return sequences * kTokensEach / seconds;
}

absl::Status Run(const Flags& flags) {
  ESSOR_ASSIGN_OR_RETURN(const auto plan, model::ParallelPlan::Parse(flags.plan));
  ESSOR_ASSIGN_OR_RETURN(
      const auto instance,
      testing::LocalInstance::Create(
          {.model_path = flags.model,
           .plan = flags.plan,
           .limits = {.block_tokens = kBlockTokens,
                      .max_step_tokens = std::max(512u, flags.sequences * kPromptTokens),
                      .max_sequences = flags.sequences,
                      .max_context_tokens = kContextTokens},
           .num_blocks = flags.sequences * kContextTokens / kBlockTokens,
           .threads_per_rank = flags.threads}));
  const auto groups = Groups(flags.sequences, plan.pp);
  const size_t most = plan.StepsInFlightMax();
  ESSOR_RETURN_IF_ERROR(Decode(*instance, groups, flags.sequences, most).status());  // warm-up
  std::vector<double> one, all, gain;
  for (uint32_t round = 0; round < flags.rounds; ++round) {
    ESSOR_ASSIGN_OR_RETURN(const double alone, Decode(*instance, groups, flags.sequences, 1));
    ESSOR_ASSIGN_OR_RETURN(const double ahead, Decode(*instance, groups, flags.sequences, most));
    one.push_back(alone);
    all.push_back(ahead);
    gain.push_back(ahead / alone);
  }
  PrintStatistics("decode_1_in_flight", "tok/s", one, flags.json);
  PrintStatistics("decode_" + std::to_string(most) + "_in_flight", "tok/s", all, flags.json);
  PrintStatistics("gain_of_" + std::to_string(plan.pp), "ratio", gain, flags.json);
  return absl::OkStatus();
}

}  // namespace
}  // namespace essor::benchmarks

int main(int argc, char** argv) {
  CLI::App app{
      "Decode of one in-process instance in stages, with one step under way and with more"};
  essor::benchmarks::Flags flags;
  app.add_option("--model", flags.model, "Hugging Face directory or .gguf")->required();
  app.add_option("--plan", flags.plan, "Parallel plan")->capture_default_str();
  app.add_option("--threads", flags.threads, "Threads per rank")->capture_default_str();
  app.add_option("--sequences", flags.sequences, "Decoded at once")->capture_default_str();
  app.add_option("--rounds", flags.rounds, "Measured rounds")->capture_default_str();
  app.add_flag("--json", flags.json, "One JSON object per figure");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = essor::benchmarks::Run(flags);
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}
