// Random histories of requests against the production scheduler and workers that check all they are
// told. Every seed is a history of its own; a failure names its seed.
//
// ESSOR_SIMULATED_STEPS=10000000 runs until that many steps were made.
#include <algorithm>
#include <cstdlib>
#include <deque>
#include <map>
#include <optional>
#include <random>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "coordinator/core/scheduler.h"
#include "coordinator/core/seed.h"
#include "gtest/gtest.h"
#include "tests/simulation/simulated_workers.h"

namespace essor::coordinator {
namespace {

constexpr uint32_t kVocab = 50;
constexpr TokenId kEos = 0;

// What continuation `index` of `task` must answer, whatever else happens around it.
std::vector<TokenId> Expected(const GenerateTask& task, uint32_t index) {
  const uint64_t seed = ContinuationSeed(task.sampling.seed, index);
  Prefix prefix = kEmptyPrefix;
  for (const TokenId token : *task.prompt) prefix = Append(prefix, token);
  std::vector<TokenId> tokens;
  while (tokens.size() < task.max_new_tokens) {
    tokens.push_back(SampleAfter(prefix, seed, kVocab));
    prefix = Append(prefix, tokens.back());
    if (tokens.back() == kEos && !task.ignore_eos) break;
    if (std::ranges::count(task.stop_token_ids, tokens.back()) > 0) break;
  }
  return tokens;
}

class Simulation {
 public:
  explicit Simulation(uint64_t seed)
      : random_(seed),
        options_(RandomOptions()),
        capacity_(RandomCapacity()),
        scheduler_(options_,
                   OutputModel{.tokenizer = nullptr, .eos_tokens = {kEos}, .vocab_size = kVocab}),
        workers_(std::in_place, options_, capacity_, kVocab) {
    scheduler_.Reset(capacity_);
    for (std::vector<TokenId>& prompt : prompts_) {
      for (uint32_t i = Draw(1, 60); i > 0; --i) prompt.push_back(Draw(1, kVocab - 1));
    }
  }

  void Run(int num_rounds) {
    for (int round = 0; round < num_rounds && !testing::Test::HasFailure(); ++round) {
      SubmitSome();
      CancelSome();
      Advance();
      if (OneIn(200)) FailAll();
      if (OneIn(400)) LoseEpoch();
    }
    for (int round = 0; round < 200000 && !live_.empty(); ++round) {
      if (testing::Test::HasFailure()) return;
      Advance();
    }
    EXPECT_TRUE(live_.empty()) << live_.size() << " requests never ended";
    while (!outcomes_.empty()) CompleteStep();
    EXPECT_EQ(scheduler_.num_running_requests(), 0u);
    EXPECT_EQ(scheduler_.num_waiting_requests(), 0u);
    EXPECT_EQ(scheduler_.num_parked_sequences(), 0u);
    for (uint32_t group = 0; group < options_.num_groups; ++group) {
      EXPECT_EQ(scheduler_.kv(group).num_used(), 0u);
      EXPECT_EQ(scheduler_.kv(group).num_reserved(), 0u);
      EXPECT_EQ(scheduler_.kv(group).num_window_blocks_used(), 0u);
      EXPECT_TRUE(options_.prefix_cache || scheduler_.kv(group).num_nodes() == 0);
    }
    trace_ += absl::StrCat("end ", num_finished_);
  }

  const std::string& trace() const { return trace_; }
  uint64_t num_steps() const { return num_steps_; }
  const Scheduler& scheduler() const { return scheduler_; }

 private:
  struct Live {
    GenerateTask task;
    ScoreTask scored{};  // with `score`
    bool score = false;
    bool cancelled = false;
    std::map<uint32_t, uint32_t> told;  // positions scored, by sequence
    bool prompt_told = false;
    std::map<uint32_t, std::vector<TokenId>> outputs;
  };

  uint32_t Draw(uint32_t low, uint32_t high) {
    return low + static_cast<uint32_t>(random_() % (high - low + 1));
  }
  bool OneIn(uint32_t count) { return Draw(1, count) == 1; }

  Scheduler::Options RandomOptions() {
    const uint32_t slots = Draw(1, 12);
    Scheduler::Options options;
    options.max_running_requests = Draw(1, 12);
    options.max_queued_requests = Draw(0, 20);
    options.num_groups = OneIn(3) ? Draw(2, 3) : 1;
    options.num_stages = OneIn(3) ? Draw(2, 4) : 1;
    options.num_slots = slots;
    options.max_step_tokens = slots + Draw(0, 40);
    options.block_tokens = Draw(1, 8);
    options.max_logits_rows = Draw(1, 10);
    options.kinds.full = !OneIn(4);
    if (!options.kinds.full || OneIn(3)) options.kinds.window_tokens = Draw(2, 20);
    options.kinds.states = OneIn(3);
    options.prefix_cache = !OneIn(4);
    options.share_cache = OneIn(2) ? Scheduler::ShareCache::kAll : Scheduler::ShareCache::kTenant;
    options.reserve_new_tokens = OneIn(2) ? Draw(0, 10) : 1000;
    if (OneIn(2)) options.target_step_time = absl::Milliseconds(Draw(1, 10));
    options.tenant_weights = {{"b", 3.0}};
    return options;
  }

  model::KvCapacity RandomCapacity() {
    model::KvCapacity capacity;
    if (options_.kinds.full) capacity.num_blocks = Draw(8, 120);
    if (options_.kinds.window_tokens > 0) {
      const uint32_t each =
          (options_.kinds.window_tokens + options_.block_tokens - 1) / options_.block_tokens + 1;
      capacity.num_window_blocks = each * Draw(1, options_.num_slots) + Draw(0, 20);
    }
    if (options_.kinds.states) capacity.num_snapshots = Draw(0, 6);
    return capacity;
  }

  void SubmitSome() {
    if (!OneIn(3)) return;
    const RequestId id(next_request_++);
    Live live;
    const Service service{.priority = static_cast<int32_t>(OneIn(5) ? Draw(0, 3) : 0),
                          .tenant = std::string(1, "abc"[Draw(0, 2)]),
                          .cache_salt = OneIn(8) ? "salt" : ""};
    absl::Status status;
    if (OneIn(10)) {
      ScoreTask task;
      task.return_logits = OneIn(2);
      task.service = service;
      for (uint32_t i = Draw(1, 3); i > 0; --i) task.sequences.push_back(RandomPrompt());
      if (OneIn(3)) task.top_n = 2;
      live.score = true;
      live.scored = task;
      status = scheduler_.Submit(id, std::move(task), now_);
    } else {
      live.task = RandomTask();
      live.task.service = service;
      status = scheduler_.Submit(id, live.task, now_);
    }
    absl::StrAppend(&trace_, "submit ", id.value(), " ", status.ok(), "\n");
    if (status.ok()) live_[id.value()] = std::move(live);
  }

  // A part of one of a few texts, and perhaps something of its own behind it.
  std::vector<TokenId> RandomPrompt() {
    std::vector<TokenId> prompt = prompts_[Draw(0, 2)];
    if (OneIn(2)) prompt.resize(Draw(1, static_cast<uint32_t>(prompt.size())));
    if (OneIn(2)) {
      for (uint32_t i = Draw(0, 20); i > 0; --i) prompt.push_back(Draw(1, kVocab - 1));
    }
    // To the end of a block, or one beside it.
    const size_t whole = prompt.size() / options_.block_tokens * options_.block_tokens;
    if (OneIn(4)) prompt.resize(std::max<size_t>(whole + Draw(0, 1), 1), 1);
    return prompt;
  }

  GenerateTask RandomTask() {
    GenerateTask task;
    task.prompt = std::make_shared<const std::vector<TokenId>>(RandomPrompt());
    task.max_new_tokens = OneIn(6) ? 1 : Draw(1, 40);
    task.num_continuations = OneIn(5) ? Draw(2, 6) : 1;
    if (OneIn(12)) task.best_of = task.num_continuations + Draw(0, 3);
    task.ignore_eos = OneIn(2);
    if (OneIn(5)) task.stop_token_ids = {Draw(0, kVocab - 1), Draw(0, kVocab - 1)};
    task.echo = OneIn(8);
    if (OneIn(8)) task.prompt_logprobs = Draw(0, 3);
    task.sampling.seed = random_();
    if (OneIn(6)) task.sampling.presence_penalty = 1;
    if (OneIn(6)) task.sampling.logprobs = Draw(0, 2);
    if (OneIn(10)) task.deadline = now_ + absl::Milliseconds(Draw(1, 400));
    return task;
  }

  void CancelSome() {
    if (live_.empty() || !OneIn(13)) return;
    auto chosen = live_.begin();
    std::advance(chosen, Draw(0, static_cast<uint32_t>(live_.size()) - 1));
    chosen->second.cancelled = true;
    std::vector<RequestEvent> events;
    scheduler_.Cancel(RequestId(chosen->first), absl::CancelledError("by the test"), &events);
    Take(std::move(events));
  }

  // The steps in flight go on, and what they answer is nobody's.
  void FailAll() {
    for (auto& [id, live] : live_) live.cancelled = true;
    std::vector<RequestEvent> events;
    scheduler_.FailAll(absl::UnavailableError("by the test"), &events);
    Take(std::move(events));
    EXPECT_TRUE(live_.empty());
  }

  // Workers are lost with their steps, and others come.
  void LoseEpoch() {
    FailAll();
    outcomes_.clear();
    workers_.emplace(options_, capacity_, kVocab);
    scheduler_.Reset(capacity_);
    EXPECT_EQ(scheduler_.num_in_flight(), 0u);
  }

  // Plans a step or completes the oldest, as chance has it.
  void Advance() {
    now_ += absl::Milliseconds(Draw(1, 10));
    std::vector<RequestEvent> events;
    scheduler_.ExpireDeadlines(now_, &events);
    Take(std::move(events));
    const bool full = scheduler_.num_in_flight() == scheduler_.max_in_flight();
    if (full || (!outcomes_.empty() && OneIn(2))) {
      CompleteStep();
    } else if (!PlanStep() && !outcomes_.empty()) {
      CompleteStep();
    }
  }

  bool PlanStep() {
    const std::optional<Step> step = scheduler_.PlanStep(now_);
    if (!step.has_value()) return false;
    ++num_steps_;
    Check(*step);
    outcomes_.emplace_back(step->step_id, workers_->Run(*step));
    absl::StrAppend(&trace_, "step ", step->step_id.value(), " ", step->num_tokens, " ",
                    step->decode_slots.size(), "\n");
    return true;
  }

  void Check(const Step& step) {
    std::map<uint32_t, uint32_t> tokens;  // by group
    std::map<uint32_t, bool> seen;
    uint32_t logits_rows = 0;
    const auto count = [&](uint32_t slot, size_t rows) {
      EXPECT_FALSE(std::exchange(seen[slot], true)) << "a slot twice in one step";
      tokens[slot / options_.num_slots] += static_cast<uint32_t>(rows);
    };
    for (const uint32_t slot : step.decode_slots) count(slot, 1);
    for (const SequenceStep& entry : step.sequences) {
      count(entry.slot, std::max<size_t>(entry.tokens.size(), 1));
      if (entry.return_logits) logits_rows += static_cast<uint32_t>(entry.tokens.size());
    }
    uint32_t all = 0;
    for (const auto& [group, rows] : tokens) {
      EXPECT_LE(rows, options_.max_step_tokens);
      all += rows;
    }
    EXPECT_EQ(all, step.num_tokens);
    EXPECT_LE(logits_rows, options_.max_logits_rows);
    EXPECT_LE(scheduler_.num_running_requests(), options_.max_running_requests);
  }

  // The answer of a step comes in parts, from the workers of its groups.
  void CompleteStep() {
    StepOutcome whole = std::move(outcomes_.front().second);
    workers_->Completed(outcomes_.front().first);
    outcomes_.pop_front();
    if (OneIn(300)) SpoilToken(&whole);
    std::vector<StepOutcome> parts;
    if (OneIn(2) && whole.logprobs.empty()) {
      parts.resize(options_.num_groups);
      for (const SampledToken& sampled : whole.sampled) {
        parts[sampled.slot / options_.num_slots].sampled.push_back(sampled);
      }
      for (ScoreRows& rows : whole.scores) {
        parts[rows.slot / options_.num_slots].scores.push_back(std::move(rows));
      }
    } else {
      parts.push_back(std::move(whole));
    }
    CancelSome();
    if (OneIn(50)) RefuseOutcome(parts);
    std::vector<RequestEvent> results;
    const absl::Status status = scheduler_.ApplyOutcome(std::span(parts), now_, &results);
    EXPECT_TRUE(status.ok()) << status;
    Take(std::move(results));
  }

  // Logits that are not finite, for one sequence.
  void SpoilToken(StepOutcome* outcome) {
    if (outcome->sampled.empty()) return;
    outcome->sampled[Draw(0, static_cast<uint32_t>(outcome->sampled.size()) - 1)].token = kNoToken;
  }

  // An answer that does not fit the step changes nothing.
  void RefuseOutcome(std::vector<StepOutcome> parts) {
    StepOutcome& part = parts[Draw(0, static_cast<uint32_t>(parts.size()) - 1)];
    switch (Draw(0, 3)) {
      case 0:
        part.sampled.push_back({Draw(0, 100), Draw(0, kVocab)});
        if (!part.sampled.empty()) part.sampled.push_back(part.sampled.front());
        break;
      case 1:
        part.scores.push_back({.slot = Draw(0, 100)});
        part.scores.push_back(part.scores.front());
        break;
      case 2:
        part.logprobs.emplace_back();
        break;
      default:
        if (part.sampled.empty()) return;
        part.sampled.pop_back();
    }
    std::vector<RequestEvent> results;
    EXPECT_TRUE(absl::IsInternal(scheduler_.ApplyOutcome(std::span(parts), now_, &results)));
    EXPECT_TRUE(results.empty());
  }

  void Take(std::vector<RequestEvent> events) {
    for (RequestEvent& event : events) {
      const auto found = live_.find(event.request.value());
      if (found == live_.end()) {
        ADD_FAILURE() << "an event of the ended request " << event.request.value();
        continue;
      }
      Live& live = found->second;
      if (event.prompt.has_value()) {
        EXPECT_FALSE(std::exchange(live.prompt_told, true)) << "the prompt is told twice";
        EXPECT_TRUE(live.outputs.empty()) << "the prompt is told after a token";
        EXPECT_EQ(event.prompt->token_ids, *live.task.prompt);
        if (live.task.prompt_logprobs.has_value()) CheckPrompt(*event.prompt);
      }
      if (event.tokens.has_value()) {
        auto& output = live.outputs[event.tokens->index];
        output.insert(output.end(), event.tokens->token_ids.begin(), event.tokens->token_ids.end());
      }
      if (event.scores.has_value()) CheckScores(*event.scores, &live);
      if (!event.done.has_value()) continue;
      if (event.done->ok() && !live.score) CheckAnswer(live);
      if (event.done->ok() && live.score) CheckAllScored(live);
      EXPECT_TRUE(event.done->ok() || live.cancelled || absl::IsDeadlineExceeded(*event.done) ||
                  absl::IsInternal(*event.done));
      ++num_finished_;
      live_.erase(found);
    }
  }

  static void CheckPrompt(const PromptOutput& prompt) {
    ASSERT_EQ(prompt.logprobs.size() + 1, prompt.token_ids.size());
    for (size_t i = 0; i < prompt.logprobs.size(); ++i) {
      EXPECT_EQ(prompt.logprobs[i].logprob, -static_cast<float>(prompt.token_ids[i + 1]));
    }
  }

  // Every position is told once, in order.
  static void CheckScores(const ScoreOutput& output, Live* live) {
    ASSERT_LT(output.sequence_index, live->scored.sequences.size());
    const std::vector<TokenId>& input = live->scored.sequences[output.sequence_index];
    uint32_t& told = live->told[output.sequence_index];
    EXPECT_EQ(output.first_position, told) << "positions are told twice, or not at all";
    told = output.first_position + output.num_positions;
    ASSERT_LE(told, input.size());
    ASSERT_EQ(output.logprobs.size(),
              std::min<size_t>(told + 1, input.size()) - output.first_position - 1);
    for (size_t i = 0; i < output.logprobs.size(); ++i) {
      EXPECT_EQ(output.logprobs[i], -static_cast<float>(input[output.first_position + i + 1]));
    }
    EXPECT_EQ(output.tops.size(), live->scored.top_n > 0 ? output.logprobs.size() : 0);
    EXPECT_EQ(output.logits.size(),
              live->scored.return_logits ? output.num_positions * kVocab * sizeof(float) : 0);
  }

  static void CheckAllScored(const Live& live) {
    for (uint32_t i = 0; i < live.scored.sequences.size(); ++i) {
      const auto told = live.told.find(i);
      ASSERT_TRUE(told != live.told.end());
      EXPECT_EQ(told->second, live.scored.sequences[i].size());
    }
  }

  static void CheckAnswer(const Live& live) {
    const GenerateTask& task = live.task;
    EXPECT_EQ(live.prompt_told, task.echo || task.prompt_logprobs.has_value());
    EXPECT_EQ(live.outputs.size(), task.num_continuations);
    if (task.best_of == 0) {
      for (const auto& [index, tokens] : live.outputs) EXPECT_EQ(tokens, Expected(task, index));
      return;
    }
    std::vector<std::vector<TokenId>> possible;
    for (uint32_t i = 0; i < task.best_of; ++i) possible.push_back(Expected(task, i));
    for (const auto& [index, tokens] : live.outputs) {
      EXPECT_TRUE(std::ranges::count(possible, tokens) > 0) << "no continuation was so";
    }
  }

  std::mt19937_64 random_;
  const Scheduler::Options options_;
  const model::KvCapacity capacity_;
  Scheduler scheduler_;
  std::optional<SimulatedWorkers> workers_;  // of the epoch
  std::vector<TokenId> prompts_[3];
  std::deque<std::pair<StepId, StepOutcome>> outcomes_;  // of the steps in flight
  absl::Time now_ = absl::UnixEpoch();
  uint64_t next_request_ = 1;
  uint64_t num_finished_ = 0;
  uint64_t num_steps_ = 0;
  std::map<uint64_t, Live> live_;
  std::string trace_;
};

uint64_t StepsAskedFor() {
  const char* const text = std::getenv("ESSOR_SIMULATED_STEPS");
  uint64_t steps = 200'000;
  if (text != nullptr && !absl::SimpleAtoi(text, &steps)) ADD_FAILURE() << "not a number: " << text;
  return steps;
}

TEST(SchedulerSimulationTest, RandomHistoriesKeepEveryInvariant) {
  const uint64_t asked = StepsAskedFor();
  uint64_t num_steps = 0;
  uint64_t preemptions = 0;
  uint64_t cached = 0;
  uint64_t discarded = 0;
  uint64_t seed = 0;
  for (; num_steps < asked && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    Simulation simulation(seed);
    simulation.Run(600);
    num_steps += simulation.num_steps();
    preemptions += simulation.scheduler().num_preemptions();
    cached += simulation.scheduler().cached_tokens();
    discarded += simulation.scheduler().discarded_tokens();
  }
  std::printf("%d histories, %d steps, %d preemptions, %d cached and %d discarded tokens\n",
              static_cast<int>(seed), static_cast<int>(num_steps), static_cast<int>(preemptions),
              static_cast<int>(cached), static_cast<int>(discarded));
  // The histories go where it is narrow.
  EXPECT_GT(preemptions, num_steps / 1000);
  EXPECT_GT(cached, num_steps / 10);
  EXPECT_GT(discarded, num_steps / 1000);
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

// Two tenants that always have requests waiting. What they were served (by weight) never differs by
// more than 2 max(L, 2 M), with L the longest prompt and M the most tokens that run at once
// (arXiv 2401.00588, theorem 4.4, with our costs of 1 and 2).
TEST(SchedulerSimulationTest, FairnessBoundHolds) {
  constexpr uint32_t kPromptMax = 60;
  constexpr uint32_t kNewMax = 40;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    std::mt19937_64 random(seed);
    const auto draw = [&](uint32_t low, uint32_t high) {
      return low + static_cast<uint32_t>(random() % (high - low + 1));
    };
    Scheduler::Options options;
    options.num_slots = options.max_running_requests = draw(1, 8);
    options.max_step_tokens = options.num_slots + draw(0, 40);
    options.block_tokens = 4;
    options.reserve_new_tokens = draw(0, 50);
    options.tenant_weights = {{"a", 1.0 + draw(0, 3)}};
    const model::KvCapacity capacity{.num_blocks = draw(30, 200)};
    Scheduler scheduler(options,
                        {.tokenizer = nullptr, .eos_tokens = {kEos}, .vocab_size = kVocab});
    scheduler.Reset(capacity);
    SimulatedWorkers workers(options, capacity, kVocab);
    uint64_t next = 1;
    std::map<uint64_t, std::string> alive;
    const auto backlog = [&](const std::string& tenant, uint32_t prompt_max) {
      while (std::ranges::count_if(alive, [&](const auto& one) { return one.second == tenant; }) <
             20) {
        GenerateTask task;
        std::vector<TokenId> prompt(draw(1, prompt_max));
        for (TokenId& token : prompt) token = draw(1, kVocab - 1);
        task.prompt = std::make_shared<const std::vector<TokenId>>(std::move(prompt));
        task.max_new_tokens = draw(1, kNewMax);
        task.sampling.seed = random();
        task.service.tenant = tenant;
        ASSERT_TRUE(scheduler.Submit(RequestId(next), std::move(task), absl::UnixEpoch()).ok());
        alive[next++] = tenant;
      }
    };
    const double bound = 2.0 * std::max(kPromptMax, 2 * options.num_slots * (kPromptMax + kNewMax));
    for (int step = 0; step < 2000; ++step) {
      backlog("a", 5);  // short prompts against long ones
      backlog("b", kPromptMax);
      const auto planned = scheduler.PlanStep(absl::UnixEpoch());
      ASSERT_TRUE(planned.has_value());
      StepOutcome outcome = workers.Run(*planned);
      workers.Completed(planned->step_id);
      std::vector<RequestEvent> events;
      ASSERT_TRUE(scheduler.ApplyOutcome(std::span(&outcome, 1), absl::UnixEpoch(), &events).ok());
      for (const RequestEvent& event : events) {
        if (event.done.has_value()) alive.erase(event.request.value());
      }
      ASSERT_LE(std::abs(scheduler.Served("a") - scheduler.Served("b")), bound) << "step " << step;
    }
    // The bound would hold if nobody were served.
    EXPECT_GT(scheduler.Served("a"), bound);
  }
}

}  // namespace
}  // namespace essor::coordinator
