// Random histories of requests against the production scheduler and a worker that keeps the state
// real workers keep. Every seed is a history of its own; a failure names its seed.
#include <map>
#include <random>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "coordinator/core/scheduler.h"
#include "coordinator/core/seed.h"
#include "gtest/gtest.h"

namespace essor::coordinator {
namespace {

constexpr uint32_t kVocab = 50;
constexpr TokenId kEos = 0;

// The token at `position` of a sequence with `seed`: a pure function, as with real sampling.
TokenId TokenAt(uint64_t seed, uint32_t position) {
  uint64_t mixed = (seed + 1) * 0x9e3779b97f4a7c15ull + position * 0xbf58476d1ce4e5b9ull;
  mixed ^= mixed >> 29;
  return static_cast<TokenId>(mixed % kVocab);
}

// What continuation `index` of `task` must answer, whatever else happens around it.
std::vector<TokenId> Expected(const GenerateTask& task, uint32_t index) {
  const uint64_t seed = ContinuationSeed(task.sampling.seed, index);
  std::vector<TokenId> tokens;
  while (tokens.size() < task.max_new_tokens) {
    const auto position = static_cast<uint32_t>(task.prompt->size() + tokens.size());
    tokens.push_back(TokenAt(seed, position));
    if (tokens.back() == kEos && !task.ignore_eos) break;
  }
  return tokens;
}

class Simulation {
 public:
  explicit Simulation(uint64_t seed) : random_(seed), options_(RandomOptions()) {
    num_blocks_ = Draw(8, 200);
    scheduler_ = std::make_unique<Scheduler>(
        options_, OutputModel{.tokenizer = nullptr, .eos_tokens = {kEos}, .vocab_size = kVocab});
    scheduler_->Reset(num_blocks_);
  }

  void Run(int num_rounds) {
    for (int round = 0; round < num_rounds && !testing::Test::HasFailure(); ++round) {
      SubmitSome(round);
      CancelSome();
      Step();
    }
    for (int round = 0; round < 100000 && !live_.empty(); ++round) Step();
    EXPECT_TRUE(live_.empty()) << live_.size() << " requests never ended";
    EXPECT_EQ(scheduler_->num_running_requests(), 0u);
    EXPECT_EQ(scheduler_->num_waiting_requests(), 0u);
    EXPECT_EQ(scheduler_->blocks().num_used(), 0u);
    EXPECT_EQ(scheduler_->blocks().num_unreserved(), num_blocks_);
    trace_ += absl::StrCat("end ", num_finished_);
  }

  const std::string& trace() const { return trace_; }

 private:
  struct Slot {
    uint64_t seed = 0;
    uint32_t num_tokens = 0;
    std::vector<BlockId> blocks;
  };
  struct Live {
    GenerateTask task;
    bool score = false;
    bool cancelled = false;
    std::map<uint32_t, std::vector<TokenId>> outputs;
  };

  uint32_t Draw(uint32_t low, uint32_t high) {
    return low + static_cast<uint32_t>(random_() % (high - low + 1));
  }

  Scheduler::Options RandomOptions() {
    const uint32_t slots = Draw(1, 12);
    return {.max_running_requests = Draw(1, 12),
            .max_queued_requests = Draw(0, 20),
            .num_slots = slots,
            .max_step_tokens = slots + Draw(0, 40),
            .block_tokens = Draw(1, 8),
            .max_logits_rows = Draw(1, 10)};
  }

  void SubmitSome(int round) {
    if (Draw(0, 2) != 0) return;
    const RequestId id(next_request_++);
    Live live;
    absl::Status status;
    if (Draw(0, 9) == 0) {
      ScoreTask task;
      task.return_logits = Draw(0, 1) == 1;
      for (uint32_t i = Draw(1, 3); i > 0; --i) task.sequences.emplace_back(Draw(1, 30), 1);
      live.score = true;
      status = scheduler_->Submit(id, std::move(task), now_);
    } else {
      live.task.prompt = std::make_shared<const std::vector<TokenId>>(Draw(1, 60), TokenId{1});
      live.task.max_new_tokens = Draw(1, 40);
      live.task.num_continuations = Draw(0, 4) == 0 ? Draw(2, 6) : 1;
      live.task.ignore_eos = Draw(0, 1) == 1;
      live.task.sampling.seed = random_();
      if (Draw(0, 9) == 0) live.task.deadline = now_ + absl::Milliseconds(Draw(1, 400));
      status = scheduler_->Submit(id, live.task, now_);
    }
    trace_ += absl::StrCat("submit ", id.value(), " ", round, " ", status.ok(), "\n");
    if (status.ok()) live_[id.value()] = std::move(live);
  }

  void CancelSome() {
    if (live_.empty() || Draw(0, 12) != 0) return;
    auto chosen = live_.begin();
    std::advance(chosen, Draw(0, static_cast<uint32_t>(live_.size()) - 1));
    chosen->second.cancelled = true;
    std::vector<RequestEvent> events;
    scheduler_->Cancel(RequestId(chosen->first), absl::CancelledError("by the test"), &events);
    Take(std::move(events));
  }

  void Step() {
    now_ += absl::Milliseconds(Draw(1, 10));
    std::vector<RequestEvent> events;
    scheduler_->ExpireDeadlines(now_, &events);
    Take(std::move(events));
    const std::optional<coordinator::Step> step = scheduler_->PlanStep(now_);
    if (!step.has_value()) return;
    StepOutcome outcome = Compute(*step);
    CancelSome();  // while the step is under way
    std::vector<RequestEvent> results;
    ASSERT_TRUE(scheduler_->ApplyOutcome(std::move(outcome), now_, &results).ok());
    Take(std::move(results));
  }

  // The worker: checks the step against the protocol and answers it.
  StepOutcome Compute(const coordinator::Step& step) {
    for (const uint32_t slot : step.release_slots) EXPECT_EQ(slots_.erase(slot), 1u);
    for (const SlotStart& start : step.starts) {
      EXPECT_LT(start.slot, options_.num_slots);
      EXPECT_TRUE(slots_.emplace(start.slot, Slot{start.sampling.seed, 0, {}}).second);
    }
    StepOutcome outcome;
    uint32_t num_tokens = 0;
    uint32_t logits_rows = 0;
    std::set<uint32_t> seen;
    for (const SequenceStep& entry : step.sequences) {
      EXPECT_TRUE(seen.insert(entry.slot).second) << "a slot twice in one step";
      const auto found = slots_.find(entry.slot);
      if (found == slots_.end()) {
        ADD_FAILURE() << "a step of the empty slot " << entry.slot;
        continue;
      }
      Slot& slot = found->second;
      const auto rows = static_cast<uint32_t>(std::max<size_t>(entry.tokens.size(), 1));
      num_tokens += rows;
      if (entry.return_logits) logits_rows += rows;
      slot.num_tokens += rows;
      slot.blocks.insert(slot.blocks.end(), entry.new_blocks.begin(), entry.new_blocks.end());
      EXPECT_GE(slot.blocks.size() * options_.block_tokens, slot.num_tokens);
      if (!entry.hold) {
        outcome.sampled.push_back({entry.slot, TokenAt(slot.seed, slot.num_tokens)});
      }
      if (entry.score) {
        ScoreRows scores{.slot = entry.slot};
        scores.logprobs.assign(entry.score_targets.size(), -1.0f);
        if (entry.return_logits) scores.logits.assign(rows * kVocab * sizeof(float), '\0');
        outcome.scores.push_back(std::move(scores));
      }
    }
    EXPECT_EQ(num_tokens, step.num_tokens);
    EXPECT_LE(num_tokens, options_.max_step_tokens);
    EXPECT_LE(logits_rows, options_.max_logits_rows);
    CheckBlocks();
    trace_ += absl::StrCat("step ", step.step_id.value(), " ", num_tokens, "\n");
    return outcome;
  }

  void CheckBlocks() {
    std::set<uint32_t> owners;
    for (const auto& [number, slot] : slots_) {
      for (const BlockId block : slot.blocks) {
        EXPECT_LT(block.value(), num_blocks_);
        EXPECT_TRUE(owners.insert(block.value()).second) << "two sequences share a block";
      }
    }
  }

  void Take(std::vector<RequestEvent> events) {
    for (RequestEvent& event : events) {
      const auto found = live_.find(event.request.value());
      if (found == live_.end()) {
        ADD_FAILURE() << "an event of the ended request " << event.request.value();
        continue;
      }
      Live& live = found->second;
      if (event.tokens.has_value()) {
        auto& output = live.outputs[event.tokens->index];
        output.insert(output.end(), event.tokens->token_ids.begin(), event.tokens->token_ids.end());
      }
      if (!event.done.has_value()) continue;
      if (event.done->ok() && !live.score) {
        for (uint32_t i = 0; i < live.task.num_continuations; ++i) {
          EXPECT_EQ(live.outputs[i], Expected(live.task, i)) << "request " << found->first;
        }
      }
      EXPECT_TRUE(event.done->ok() || live.cancelled || absl::IsDeadlineExceeded(*event.done));
      ++num_finished_;
      live_.erase(found);
    }
  }

  std::mt19937_64 random_;
  const Scheduler::Options options_;
  uint32_t num_blocks_ = 0;
  std::unique_ptr<Scheduler> scheduler_;
  absl::Time now_ = absl::UnixEpoch();
  uint64_t next_request_ = 1;
  uint64_t num_finished_ = 0;
  std::map<uint64_t, Live> live_;
  std::map<uint32_t, Slot> slots_;
  std::string trace_;
};

TEST(SchedulerSimulationTest, RandomHistoriesKeepEveryInvariant) {
  for (uint64_t seed = 0; seed < 300 && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    Simulation(seed).Run(300);
  }
}

TEST(SchedulerSimulationTest, TheSameHistoryGivesTheSameSteps) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Simulation first(seed);
    Simulation second(seed);
    first.Run(200);
    second.Run(200);
    EXPECT_EQ(first.trace(), second.trace()) << "seed " << seed;
  }
}

}  // namespace
}  // namespace essor::coordinator
