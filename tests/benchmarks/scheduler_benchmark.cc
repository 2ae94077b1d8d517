// What the scheduler costs: time per running sequence and step (planned and applied), by how many
// run and how many wait.
//
// Goal: at most 2 us at 1,024 running sequences, whatever waits: 500,000 items a second.
#include <memory>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "benchmark/benchmark.h"
#include "coordinator/core/scheduler.h"

namespace essor::coordinator {
namespace {

constexpr uint32_t kVocab = 50'000;
constexpr uint32_t kPromptTokens = 64;
constexpr uint32_t kEndless = 1u << 20;

class Load {
 public:
  Load(uint32_t num_running, uint32_t num_waiting)
      : scheduler_({.max_running_requests = num_running,
                    .max_queued_requests = num_waiting + num_running,
                    .num_slots = num_running,
                    .max_step_tokens = num_running + 4096,
                    .reserve_new_tokens = 0},
                   OutputModel{.tokenizer = nullptr, .eos_tokens = {0}, .vocab_size = kVocab}) {
    scheduler_.Reset({.num_blocks = 1u << 21});
    for (uint32_t i = 0; i < num_running + num_waiting; ++i) Submit();
    while (scheduler_.num_running_requests() < num_running) Step();
    for (int i = 0; i < 8; ++i) Step();
  }

  // One step is planned while the one before is in flight, as the driver does it.
  void Step() {
    while (scheduler_.num_in_flight() < scheduler_.max_in_flight()) {
      std::optional<coordinator::Step> step = scheduler_.PlanStep(now_);
      if (!step.has_value()) break;
      StepOutcome outcome;
      for (const uint32_t slot : step->decode_slots) outcome.sampled.push_back({slot, 7});
      for (const SequenceStep& entry : step->sequences) {
        if (!entry.hold) outcome.sampled.push_back({entry.slot, 7});
      }
      outcomes_.push_back(std::move(outcome));
    }
    now_ += absl::Milliseconds(10);
    events_.clear();
    const absl::Status status =
        scheduler_.ApplyOutcome(std::span(&outcomes_.front(), 1), now_, &events_);
    if (!status.ok()) std::abort();
    outcomes_.erase(outcomes_.begin());
  }

 private:
  void Submit() {
    GenerateTask task;
    std::vector<TokenId> prompt(kPromptTokens);
    for (TokenId& token : prompt) token = 1 + static_cast<TokenId>(random_() % (kVocab - 1));
    task.prompt = std::make_shared<const std::vector<TokenId>>(std::move(prompt));
    task.max_new_tokens = kEndless;
    task.service.tenant = std::to_string(random_() % 16);
    const absl::Status status =
        scheduler_.Submit(RequestId(++num_requests_), std::move(task), now_);
    if (!status.ok()) std::abort();
  }

  std::mt19937_64 random_{1};
  Scheduler scheduler_;
  std::vector<StepOutcome> outcomes_;
  std::vector<RequestEvent> events_;
  uint64_t num_requests_ = 0;
  absl::Time now_ = absl::UnixEpoch();
};

void BM_Step(benchmark::State& state) {
  const auto num_running = static_cast<uint32_t>(state.range(0));
  Load load(num_running, static_cast<uint32_t>(state.range(1)));
  for (auto _ : state) load.Step();
  state.SetItemsProcessed(state.iterations() * num_running);
}
BENCHMARK(BM_Step)
    ->ArgNames({"running", "waiting"})
    ->Args({1, 0})
    ->Args({32, 0})
    ->Args({256, 0})
    ->Args({1024, 0})
    ->Args({1024, 1000})
    ->Args({1024, 100000})
    ->Iterations(20'000)  // no sequence reaches its end
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace essor::coordinator
