#include "coordinator/core/scheduler.h"

#include <cmath>
#include <span>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/error_details.h"
#include "coordinator/core/seed.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace essor::coordinator {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr uint32_t kVocab = 100;
constexpr TokenId kEos = 99;

// Drives a scheduler and answers its steps by a rule, keeping every event.
class SchedulerTest : public testing::Test {
 protected:
  void Start(const Scheduler::Options& options, uint32_t num_blocks) {
    options_ = options;
    scheduler_ = std::make_unique<Scheduler>(
        options, OutputModel{.tokenizer = nullptr, .eos_tokens = {kEos}, .vocab_size = kVocab});
    scheduler_->Reset({.num_blocks = num_blocks});
  }

  // Every task has a prompt that no other begins with.
  GenerateTask Task(uint32_t prompt_length, uint32_t max_new_tokens) {
    GenerateTask task;
    std::vector<TokenId> prompt(prompt_length, TokenId{1});
    prompt[0] = 2 + num_tasks_++;
    task.prompt = std::make_shared<const std::vector<TokenId>>(std::move(prompt));
    task.max_new_tokens = max_new_tokens;
    return task;
  }

  absl::Status Submit(uint64_t id, GenerateTask task) {
    return scheduler_->Submit(RequestId(id), std::move(task), now_);
  }

  std::optional<Step> Plan() { return scheduler_->PlanStep(now_); }

  absl::Status Apply(StepOutcome outcome) {
    return scheduler_->ApplyOutcome(std::span(&outcome, 1), now_, &events_);
  }

  // The token every sampling slot gets.
  void Answer(const Step& step, TokenId token) {
    StepOutcome outcome;
    for (const uint32_t slot : step.decode_slots) outcome.sampled.push_back({slot, token});
    for (const SequenceStep& entry : step.sequences) {
      if (!entry.hold) outcome.sampled.push_back({entry.slot, token});
      if (entry.score) {
        ScoreRows rows{.slot = entry.slot};
        for (const TokenId target : entry.score_targets) {
          rows.logprobs.push_back(-static_cast<float>(target));
        }
        if (entry.return_logits) rows.logits.assign(entry.tokens.size() * kVocab * 4, 'x');
        outcome.scores.push_back(std::move(rows));
      }
    }
    now_ += absl::Milliseconds(5);
    ASSERT_TRUE(Apply(std::move(outcome)).ok());
  }

  // A step in short: "slot:tokens" per entry, with h = hold, s = score, +n = new blocks, and of a
  // start that finds something in the cache the tokens it finds.
  static std::string Show(const std::optional<Step>& step) {
    if (!step.has_value()) return "none";
    std::string text;
    for (const uint32_t slot : step->release_slots) absl::StrAppend(&text, "release ", slot, " ");
    for (const SlotStart& start : step->starts) {
      absl::StrAppend(&text, "start ", start.slot, " ");
      if (start.context_tokens > 0) absl::StrAppend(&text, "at ", start.context_tokens, " ");
    }
    for (const uint32_t slot : step->decode_slots) absl::StrAppend(&text, slot, ":0 ");
    for (const SequenceStep& entry : step->sequences) {
      absl::StrAppend(&text, entry.slot, ":", entry.tokens.size(), entry.hold ? "h" : "",
                      entry.score ? "s" : "");
      if (!entry.new_blocks.empty()) absl::StrAppend(&text, "+", entry.new_blocks.size());
      text += ' ';
    }
    if (!text.empty()) text.pop_back();
    return text;
  }

  std::string DoneMessages() const {
    std::string text;
    for (const RequestEvent& event : events_) {
      if (!event.done.has_value()) continue;
      absl::StrAppend(&text, event.request.value(), "=",
                      absl::StatusCodeToString(event.done->code()), " ");
    }
    if (!text.empty()) text.pop_back();
    return text;
  }

  uint32_t num_tasks_ = 0;
  Scheduler::Options options_;
  std::unique_ptr<Scheduler> scheduler_;
  std::vector<RequestEvent> events_;
  absl::Time now_ = absl::UnixEpoch();
};

TEST_F(SchedulerTest, NothingToDoIsNoStep) {
  Start({.num_slots = 4}, 100);
  EXPECT_FALSE(Plan().has_value());
}

// A prompt longer than the budget goes in chunks; only its last chunk samples.
TEST_F(SchedulerTest, LongPromptIsPrefilledInChunks) {
  Start({.num_slots = 4, .max_step_tokens = 8, .block_tokens = 4}, 100);
  ASSERT_TRUE(Submit(1, Task(18, 3)).ok());
  auto step = Plan();
  EXPECT_EQ(Show(step), "start 0 0:8h+2");
  Answer(*step, 5);
  step = Plan();
  EXPECT_EQ(Show(step), "0:8h+2");
  Answer(*step, 5);
  step = Plan();
  EXPECT_EQ(Show(step), "0:2+1");
  EXPECT_EQ(step->step_id, StepId(3));
  Answer(*step, 5);
  // Steady decode is the slot alone: the worker knows the token it sampled.
  step = Plan();
  EXPECT_EQ(Show(step), "0:0");
  Answer(*step, 6);
  step = Plan();
  EXPECT_EQ(Show(step), "0:0");
  Answer(*step, 7);
  EXPECT_FALSE(Plan().has_value());
  ASSERT_EQ(events_.size(), 4u);
  EXPECT_THAT(events_[0].tokens->token_ids, ElementsAre(5));
  EXPECT_EQ(events_[0].tokens->finish_reason, FinishReason::kNone);
  EXPECT_EQ(events_[2].tokens->finish_reason, FinishReason::kLength);
  EXPECT_EQ(events_[2].tokens->usage.prompt_tokens, 18u);
  EXPECT_EQ(events_[2].tokens->usage.generated_tokens, 3u);
  EXPECT_EQ(events_[2].tokens->timing.first_token, absl::Milliseconds(15));
  EXPECT_EQ(events_[2].tokens->timing.total, absl::Milliseconds(25));
  EXPECT_TRUE(events_[3].done->ok());
  EXPECT_EQ(scheduler_->kv(0).num_used(), 0u);
}

// Decoding sequences come first; what is left of the budget goes to prompts in order of arrival.
TEST_F(SchedulerTest, DecodeComesBeforePrefill) {
  Start({.num_slots = 4, .max_step_tokens = 8, .block_tokens = 4}, 100);
  ASSERT_TRUE(Submit(1, Task(4, 10)).ok());
  Answer(*Plan(), 5);
  ASSERT_TRUE(Submit(2, Task(10, 10)).ok());
  ASSERT_TRUE(Submit(3, Task(3, 10)).ok());
  auto step = Plan();
  EXPECT_EQ(Show(step), "start 1 0:0+1 1:7h+2");
  EXPECT_EQ(step->num_tokens, 8u);
  Answer(*step, 5);
  EXPECT_EQ(Show(Plan()), "start 2 0:0 1:3+1 2:3+1");
}

TEST_F(SchedulerTest, AdmissionWaitsForAllBlocksOfASequence) {
  Start({.num_slots = 4, .max_step_tokens = 64, .block_tokens = 4}, 6);
  ASSERT_TRUE(Submit(1, Task(8, 9)).ok());  // 16 KV tokens: 4 blocks
  ASSERT_TRUE(Submit(2, Task(8, 5)).ok());  // 12 KV tokens: 3 blocks
  ASSERT_TRUE(Submit(3, Task(1, 1)).ok());  // 1 block, but it came later
  auto step = Plan();
  EXPECT_EQ(Show(step), "start 0 0:8+2");
  EXPECT_EQ(scheduler_->num_waiting_requests(), 2u);
  Answer(*step, kEos);  // ends request 1
  EXPECT_EQ(Show(Plan()), "release 0 start 0 start 1 0:8+2 1:1+1");
}

TEST_F(SchedulerTest, RequestThatCanNeverFitIsRefused) {
  Start({.num_slots = 4, .max_step_tokens = 64, .block_tokens = 4}, 2);
  const absl::Status status = Submit(1, Task(8, 2));
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("needs 3 KV blocks"));
  EXPECT_TRUE(Submit(2, Task(8, 1)).ok());
}

TEST_F(SchedulerTest, FullQueueIsRefusedWithARetryDelay) {
  Start({.max_running_requests = 1, .max_queued_requests = 1, .num_slots = 4}, 100);
  ASSERT_TRUE(Submit(1, Task(4, 50)).ok());
  ASSERT_TRUE(Submit(2, Task(4, 50)).ok());
  const absl::Status status = Submit(3, Task(4, 50));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("the queue is full"));
  EXPECT_GE(RetryDelayOf(status), absl::Seconds(1));
  Answer(*Plan(), 5);
  EXPECT_EQ(scheduler_->num_running_requests(), 1u);
  EXPECT_EQ(scheduler_->num_waiting_requests(), 1u);
  EXPECT_FALSE(Submit(4, Task(4, 50)).ok());
}

TEST_F(SchedulerTest, IdlingDoesNotLengthenTheRetryDelay) {
  Start({.max_running_requests = 1, .max_queued_requests = 1, .num_slots = 4}, 100);
  for (uint64_t id = 1; id <= 3; ++id) {
    now_ += absl::Hours(1);
    ASSERT_TRUE(Submit(id, Task(4, 1)).ok());
    Answer(*Plan(), 5);
  }
  ASSERT_TRUE(Submit(4, Task(4, 50)).ok());
  ASSERT_TRUE(Submit(5, Task(4, 50)).ok());
  EXPECT_EQ(RetryDelayOf(Submit(6, Task(4, 50))), absl::Seconds(1));
}

// The others wait until the first has the prompt, then share it: all but the last token, whose
// block is copied.
TEST_F(SchedulerTest, ContinuationsShareTheirPrompt) {
  Start({.num_slots = 2, .max_step_tokens = 64, .block_tokens = 4}, 100);
  GenerateTask task = Task(7, 2);
  task.num_continuations = 3;
  task.sampling.seed = 11;
  ASSERT_TRUE(Submit(1, std::move(task)).ok());
  auto step = Plan();
  EXPECT_EQ(Show(step), "start 0 0:7+2");
  EXPECT_EQ(step->starts[0].sampling.seed, 11u);
  Answer(*step, 5);
  step = Plan();
  EXPECT_EQ(Show(step), "start 1 at 6 0:0 1:1");
  EXPECT_EQ(step->starts[0].sampling.seed, ContinuationSeed(11, 1));
  ASSERT_EQ(step->copies.size(), 1u);
  EXPECT_EQ(step->starts[0].blocks.size(), 2u);
  EXPECT_EQ(step->starts[0].blocks[1], step->copies[0].to);
  EXPECT_EQ(scheduler_->kv(0).num_used(), 3u);  // 2 and a copy of the last
  Answer(*step, 5);
  step = Plan();
  EXPECT_EQ(Show(step), "release 0 start 0 at 6 1:0 0:1");
  EXPECT_EQ(DoneMessages(), "");
  Answer(*step, 5);
  Answer(*Plan(), 5);
  EXPECT_EQ(DoneMessages(), "1=OK");
  EXPECT_EQ(scheduler_->num_running_requests(), 0u);
  EXPECT_EQ(scheduler_->kv(0).num_used(), 0u);
}

TEST_F(SchedulerTest, TheBestOfSeveralAreToldWhenAllHaveEnded) {
  Start({.num_slots = 4, .max_step_tokens = 64, .block_tokens = 4}, 100);
  GenerateTask task = Task(4, 1);
  task.num_continuations = 1;
  task.best_of = 2;
  ASSERT_TRUE(Submit(1, std::move(task)).ok());
  ASSERT_EQ(Plan()->starts[0].sampling.logprobs, 0u);
  ASSERT_TRUE(Apply({.sampled = {{0, 5}}, .logprobs = {{.logprob = -2}}}).ok());
  EXPECT_THAT(events_, IsEmpty());
  const auto step = Plan();
  ASSERT_TRUE(Apply({.sampled = {{step->starts[0].slot, 6}}, .logprobs = {{.logprob = -1}}}).ok());
  ASSERT_EQ(events_.size(), 2u);
  EXPECT_EQ(events_[0].tokens->index, 0u);
  EXPECT_THAT(events_[0].tokens->token_ids, ElementsAre(6));
  EXPECT_THAT(events_[0].tokens->logprobs, IsEmpty());  // nobody asked for them
  EXPECT_EQ(DoneMessages(), "1=OK");
}

TEST_F(SchedulerTest, ThePromptIsToldFirst) {
  Start({.num_slots = 2, .max_step_tokens = 3, .block_tokens = 4}, 100);
  GenerateTask task = Task(4, 1);
  task.prompt_logprobs = 0;
  const std::vector<TokenId> prompt = *task.prompt;
  ASSERT_TRUE(Submit(1, std::move(task)).ok());
  Answer(*Plan(), 5);
  EXPECT_THAT(events_, IsEmpty());
  const auto step = Plan();
  EXPECT_EQ(Show(step), "0:1s");
  Answer(*step, 5);
  ASSERT_EQ(events_.size(), 3u);
  EXPECT_EQ(events_[0].prompt->token_ids, prompt);
  ASSERT_EQ(events_[0].prompt->logprobs.size(), 3u);
  EXPECT_EQ(events_[0].prompt->logprobs[2].logprob, -1.0f);
  EXPECT_TRUE(events_[1].tokens.has_value());
}

// A second request with the same beginning computes only what differs, and what it is told is the
// same as without.
TEST_F(SchedulerTest, CommonPrefixesAreComputedOnce) {
  for (const bool prefix_cache : {true, false}) {
    Start({.num_slots = 4, .block_tokens = 4, .prefix_cache = prefix_cache}, 100);
    events_.clear();
    GenerateTask first = Task(10, 1);
    std::vector<TokenId> prompt = *first.prompt;
    ASSERT_TRUE(Submit(1, std::move(first)).ok());
    Answer(*Plan(), 5);
    prompt.back() = 7;
    GenerateTask second = Task(1, 1);
    second.prompt = std::make_shared<const std::vector<TokenId>>(prompt);
    ASSERT_TRUE(Submit(2, std::move(second)).ok());
    const auto step = Plan();
    EXPECT_EQ(Show(step),
              prefix_cache ? "release 0 start 0 at 8 0:2+1" : "release 0 start 0 0:10+3");
    Answer(*step, 5);
    EXPECT_EQ(events_[2].tokens->usage.cached_tokens, prefix_cache ? 8u : 0u);
    EXPECT_EQ(events_[2].tokens->usage.prompt_tokens, 10u);
    EXPECT_EQ(scheduler_->kv(0).num_cached(), prefix_cache ? 2u : 0u);
  }
}

// docs/scheduling.md, "One example".
TEST_F(SchedulerTest, TheExampleOfTheDocumentation) {
  Start({.num_slots = 4, .max_step_tokens = 8, .block_tokens = 4}, 6);
  const auto used = [&] { return scheduler_->kv(0).num_used(); };
  GenerateTask a = Task(10, 3);
  std::vector<TokenId> prompt = *a.prompt;
  ASSERT_TRUE(Submit(1, std::move(a)).ok());
  const auto step1 = Plan();
  EXPECT_EQ(Show(step1), "start 0 0:8h+2");
  EXPECT_EQ(used(), 2u);
  EXPECT_EQ(scheduler_->kv(0).num_reserved(), 1u);
  const auto step2 = Plan();
  EXPECT_EQ(Show(step2), "0:2+1");
  EXPECT_EQ(used(), 3u);
  Answer(*step1, 5);
  const auto step3 = Plan();
  EXPECT_EQ(Show(step3), "0:0");
  prompt[8] = prompt[9] = 50;
  GenerateTask b = Task(1, 2);
  b.prompt = std::make_shared<const std::vector<TokenId>>(prompt);
  ASSERT_TRUE(Submit(2, std::move(b)).ok());
  Answer(*step2, 5);
  const auto step4 = Plan();
  EXPECT_EQ(Show(step4), "start 1 at 8 0:0 1:2+1");
  EXPECT_EQ(used(), 4u);
  Answer(*step3, kEos);
  EXPECT_EQ(DoneMessages(), "1=OK");
  EXPECT_EQ(used(), 3u);
  const auto step5 = Plan();
  EXPECT_EQ(Show(step5), "release 0 1:0");
  Answer(*step4, 5);
  EXPECT_EQ(scheduler_->discarded_tokens(), 1u);
  Answer(*step5, 5);
  EXPECT_EQ(DoneMessages(), "1=OK 2=OK");
  EXPECT_EQ(used(), 0u);
  EXPECT_EQ(scheduler_->kv(0).num_cached(), 3u);
}

TEST_F(SchedulerTest, SaltsAndTenantsKeepPrefixesApart) {
  Start({.num_slots = 4, .block_tokens = 4, .share_cache = Scheduler::ShareCache::kTenant}, 100);
  const GenerateTask task = Task(9, 1);
  const auto context_of = [&](uint64_t id, const std::string& tenant, const std::string& salt) {
    GenerateTask its = task;
    its.service.tenant = tenant;
    its.service.cache_salt = salt;
    EXPECT_TRUE(Submit(id, std::move(its)).ok());
    const auto step = Plan();
    Answer(*step, 5);
    return step->starts[0].context_tokens;
  };
  EXPECT_EQ(context_of(1, "a", ""), 0u);
  EXPECT_EQ(context_of(2, "a", ""), 8u);
  EXPECT_EQ(context_of(3, "b", ""), 0u);
  EXPECT_EQ(context_of(4, "a", "x"), 0u);
  EXPECT_EQ(context_of(5, "a", "x"), 8u);
}

// Two steps in flight: the second takes the token that the first has not told yet; behind an end it
// is dropped.
TEST_F(SchedulerTest, TheNextStepIsPlannedBeforeTheAnswer) {
  Start({.num_slots = 4, .block_tokens = 4}, 100);
  ASSERT_TRUE(Submit(1, Task(4, 10)).ok());
  const auto first = Plan();
  const auto second = Plan();
  EXPECT_EQ(Show(second), "0:0+1");
  EXPECT_EQ(scheduler_->num_in_flight(), scheduler_->max_in_flight());
  Answer(*first, kEos);
  EXPECT_EQ(DoneMessages(), "1=OK");
  EXPECT_EQ(scheduler_->kv(0).num_used(), 0u);
  ASSERT_TRUE(Submit(2, Task(4, 1)).ok());
  const auto third = Plan();
  EXPECT_EQ(Show(third), "release 0 start 0 0:4+1");
  Answer(*second, 5);
  EXPECT_EQ(scheduler_->discarded_tokens(), 1u);
  Answer(*third, 5);
  EXPECT_EQ(DoneMessages(), "1=OK 2=OK");
  EXPECT_EQ(events_.size(), 4u);
}

// With two stages each step takes half of the sequences, and each of them every second step.
TEST_F(SchedulerTest, StagesGetMicroBatches) {
  Start({.num_stages = 2, .num_slots = 4, .block_tokens = 16}, 100);
  for (uint64_t id = 1; id <= 4; ++id) ASSERT_TRUE(Submit(id, Task(4, 10)).ok());
  std::vector<Step> steps;
  steps.push_back(*Plan());
  EXPECT_EQ(steps[0].num_tokens, 16u);
  EXPECT_FALSE(Plan().has_value());  // their tokens are still on the way
  Answer(steps[0], 5);
  EXPECT_EQ(Show(Plan()), "0:0 1:0");
  EXPECT_EQ(Show(Plan()), "2:0 3:0");
  EXPECT_EQ(Show(Plan()), "0:0 1:0");
}

// When memory is short, the last comer makes room and is computed again later.
TEST_F(SchedulerTest, AGrowingSequencePutsTheLastOneBack) {
  Start({.num_slots = 4, .block_tokens = 4, .reserve_new_tokens = 1}, 4);
  ASSERT_TRUE(Submit(1, Task(4, 9)).ok());
  ASSERT_TRUE(Submit(2, Task(4, 9)).ok());
  auto step = Plan();
  EXPECT_EQ(Show(step), "start 0 start 1 0:4+1 1:4+1");
  Answer(*step, 5);
  for (int i = 0; i < 4; ++i) Answer(*Plan(), 6);  // each has a second block
  step = Plan();
  EXPECT_EQ(Show(step), "0:0+1");
  EXPECT_EQ(scheduler_->num_preemptions(), 1u);
  EXPECT_EQ(scheduler_->num_parked_sequences(), 1u);
  EXPECT_EQ(scheduler_->num_waiting_requests(), 1u);
  Answer(*step, 6);
  for (int i = 0; i < 3; ++i) Answer(*Plan(), 6);
  EXPECT_EQ(DoneMessages(), "1=OK");
  step = Plan();
  EXPECT_EQ(Show(step), "release 0 start 0 at 4 0:5+2");
  EXPECT_THAT(step->sequences[0].tokens, ElementsAre(5, 6, 6, 6, 6));
  Answer(*step, 7);
  for (int i = 0; i < 3; ++i) Answer(*Plan(), 7);
  EXPECT_EQ(DoneMessages(), "1=OK 2=OK");
  EXPECT_EQ(events_.back().request, RequestId(2));
}

TEST_F(SchedulerTest, HigherPriorityComesFirstAndMakesRoom) {
  Start({.num_slots = 1, .block_tokens = 4}, 100);
  ASSERT_TRUE(Submit(1, Task(4, 9)).ok());
  Answer(*Plan(), 5);
  GenerateTask urgent = Task(4, 1);
  urgent.service.priority = 2;
  ASSERT_TRUE(Submit(2, Task(4, 1)).ok());
  ASSERT_TRUE(Submit(3, std::move(urgent)).ok());
  auto step = Plan();
  EXPECT_EQ(Show(step), "release 0 start 0 0:4+1");
  Answer(*step, 5);
  EXPECT_EQ(DoneMessages(), "3=OK");
  // What was put back goes before what has not begun.
  step = Plan();
  EXPECT_EQ(Show(step), "release 0 start 0 at 4 0:1+1");
}

// Each sequence of a request makes the room that it needs itself.
TEST_F(SchedulerTest, ALongSequenceBehindAShortOneMakesRoom) {
  Start({.num_slots = 4, .block_tokens = 4}, 14);
  ASSERT_TRUE(Submit(1, Task(20, 10)).ok());  // 8 blocks
  Answer(*Plan(), 5);
  ScoreTask urgent;
  urgent.sequences = {std::vector<TokenId>(4, 7), std::vector<TokenId>(40, 8)};  // 1 and 10
  urgent.service.priority = 2;
  ASSERT_TRUE(scheduler_->Submit(RequestId(2), std::move(urgent), now_).ok());
  for (int i = 0; i < 3; ++i) Answer(*Plan(), 5);
  EXPECT_EQ(DoneMessages(), "2=OK");
  EXPECT_EQ(scheduler_->num_preemptions(), 1u);
}

// Nobody is put back for a request that could not start even then.
TEST_F(SchedulerTest, NoRoomIsMadeThatWouldNotDo) {
  Start({.num_slots = 4, .block_tokens = 4}, 14);
  const auto submit = [this](uint64_t id, uint32_t prompt_tokens, int32_t priority) {
    GenerateTask task = Task(prompt_tokens, 1);
    task.max_new_tokens = 4;
    task.service.priority = priority;
    ASSERT_TRUE(Submit(id, std::move(task)).ok());
  };
  submit(1, 29, 1);  // 8 blocks
  submit(2, 13, 0);  // 4
  Answer(*Plan(), 5);
  submit(3, 37, 1);  // 10: too many beside those of request 1
  EXPECT_EQ(Show(Plan()), "0:0 1:0");
  EXPECT_EQ(scheduler_->num_preemptions(), 0u);
}

// Prompts are cut so that steps with decoding sequences keep their time.
TEST_F(SchedulerTest, ChunksFitTheTargetTime) {
  Start({.num_slots = 4,
         .max_step_tokens = 512,
         .block_tokens = 4,
         .target_step_time = absl::Milliseconds(15)},
        1000);
  ASSERT_TRUE(Submit(1, Task(100, 200)).ok());
  Answer(*Plan(), 5);                               // 5 ms for 100 tokens: 50 us each
  for (int i = 0; i < 50; ++i) Answer(*Plan(), 6);  // 5 ms for a decode step
  ASSERT_TRUE(Submit(2, Task(400, 2)).ok());
  const auto step = Plan();
  ASSERT_EQ(step->sequences.size() + step->decode_slots.size(), 2u);
  EXPECT_NEAR(static_cast<double>(step->num_tokens), 201, 4);
}

// Also those between two steps of a sequence that decodes in every other step.
TEST_F(SchedulerTest, ChunksBetweenMicroBatchesFitTheTargetTime) {
  Start({.num_stages = 2,
         .num_slots = 4,
         .max_step_tokens = 512,
         .block_tokens = 4,
         .target_step_time = absl::Milliseconds(15)},
        1000);
  ASSERT_TRUE(Submit(1, Task(100, 200)).ok());
  Answer(*Plan(), 5);
  for (int i = 0; i < 50; ++i) Answer(*Plan(), 6);
  EXPECT_EQ(Show(Plan()), "0:0");
  ASSERT_TRUE(Submit(2, Task(400, 2)).ok());
  const auto step = Plan();
  EXPECT_EQ(step->decode_slots.size(), 0u);
  EXPECT_NEAR(static_cast<double>(step->num_tokens), 200, 4);
}

TEST_F(SchedulerTest, ADeadlineThatCannotBeMetEndsAWaitingRequest) {
  Start({.max_running_requests = 1, .num_slots = 2}, 1000);
  ASSERT_TRUE(Submit(1, Task(100, 200)).ok());
  Answer(*Plan(), 5);                // 50 us a token
  GenerateTask late = Task(400, 1);  // 20 ms
  late.deadline = now_ + absl::Milliseconds(50);
  ASSERT_TRUE(Submit(2, std::move(late)).ok());
  now_ += absl::Milliseconds(29);
  scheduler_->ExpireDeadlines(now_, &events_);
  EXPECT_EQ(DoneMessages(), "");
  now_ += absl::Milliseconds(11);
  scheduler_->ExpireDeadlines(now_, &events_);
  EXPECT_EQ(DoneMessages(), "2=DEADLINE_EXCEEDED");
  EXPECT_THAT(std::string(events_.back().done->message()),
              HasSubstr("its prompt alone takes 20ms"));
}

// A sequence goes to the group that has the least to do, or its prefix.
TEST_F(SchedulerTest, GroupsShareTheSequences) {
  Start({.num_groups = 2, .num_slots = 2, .max_step_tokens = 32, .block_tokens = 4}, 100);
  GenerateTask again = Task(24, 1);
  ASSERT_TRUE(Submit(1, again).ok());
  ASSERT_TRUE(Submit(2, Task(4, 1)).ok());
  const auto step = Plan();
  EXPECT_EQ(Show(step), "start 0 start 2 0:24+6 2:4+1");
  // Each group's worker answers for its slots.
  StepOutcome parts[] = {{.sampled = {{2, 5}}}, {.sampled = {{0, 5}}}};
  ASSERT_TRUE(scheduler_->ApplyOutcome(parts, now_, &events_).ok());
  EXPECT_EQ(DoneMessages(), "2=OK 1=OK");
  ASSERT_TRUE(Submit(3, Task(4, 1)).ok());  // both are idle: the first
  ASSERT_TRUE(Submit(4, std::move(again)).ok());
  EXPECT_EQ(Show(Plan()), "release 0 release 2 start 0 start 1 at 20 0:4+1 1:4+1");
}

TEST_F(SchedulerTest, EosEndsUnlessIgnored) {
  Start({.num_slots = 4}, 100);
  ASSERT_TRUE(Submit(1, Task(4, 10)).ok());
  GenerateTask ignoring = Task(4, 10);
  ignoring.ignore_eos = true;
  ASSERT_TRUE(Submit(2, std::move(ignoring)).ok());
  GenerateTask stopping = Task(4, 10);
  stopping.stop_token_ids = {kEos};
  stopping.ignore_eos = true;
  ASSERT_TRUE(Submit(3, std::move(stopping)).ok());
  Answer(*Plan(), kEos);
  EXPECT_EQ(DoneMessages(), "1=OK 3=OK");
  EXPECT_EQ(events_[0].tokens->finish_reason, FinishReason::kStop);
  EXPECT_THAT(events_[0].tokens->token_ids, ElementsAre(kEos));
}

// Cancelling while the step is under way: its token is ignored, the next step releases the slot.
TEST_F(SchedulerTest, CancelTakesEffectInTheNextStep) {
  Start({.num_slots = 2, .max_step_tokens = 64, .block_tokens = 4}, 100);
  ASSERT_TRUE(Submit(1, Task(4, 10)).ok());
  ASSERT_TRUE(Submit(2, Task(4, 10)).ok());
  const auto step = Plan();
  scheduler_->Cancel(RequestId(1), absl::CancelledError("gone"), &events_);
  EXPECT_EQ(DoneMessages(), "1=CANCELLED");
  EXPECT_EQ(scheduler_->num_running_requests(), 1u);
  Answer(*step, 5);
  ASSERT_EQ(events_.size(), 2u);
  EXPECT_EQ(events_[1].request, RequestId(2));
  EXPECT_EQ(Show(Plan()), "release 0 1:0+1");
  scheduler_->Cancel(RequestId(1), absl::CancelledError("again"), &events_);
  EXPECT_EQ(events_.size(), 2u);
}

TEST_F(SchedulerTest, WaitingRequestCanBeCancelled) {
  Start({.max_running_requests = 1, .num_slots = 2}, 100);
  ASSERT_TRUE(Submit(1, Task(4, 10)).ok());
  ASSERT_TRUE(Submit(2, Task(4, 10)).ok());
  Answer(*Plan(), 5);
  scheduler_->Cancel(RequestId(2), absl::CancelledError("gone"), &events_);
  EXPECT_EQ(scheduler_->num_waiting_requests(), 0u);
  EXPECT_EQ(DoneMessages(), "2=CANCELLED");
}

TEST_F(SchedulerTest, DeadlinesEndRequests) {
  Start({.max_running_requests = 1, .num_slots = 2}, 100);
  GenerateTask running = Task(4, 10);
  running.deadline = now_ + absl::Seconds(2);
  GenerateTask waiting = Task(4, 10);
  waiting.deadline = now_ + absl::Seconds(1);
  ASSERT_TRUE(Submit(1, std::move(running)).ok());
  ASSERT_TRUE(Submit(2, std::move(waiting)).ok());
  Answer(*Plan(), 5);
  scheduler_->ExpireDeadlines(now_, &events_);
  EXPECT_EQ(DoneMessages(), "");
  scheduler_->ExpireDeadlines(now_ + absl::Seconds(1), &events_);
  EXPECT_EQ(DoneMessages(), "2=DEADLINE_EXCEEDED");
  scheduler_->ExpireDeadlines(now_ + absl::Seconds(3), &events_);
  EXPECT_EQ(DoneMessages(), "2=DEADLINE_EXCEEDED 1=DEADLINE_EXCEEDED");
  EXPECT_EQ(scheduler_->kv(0).num_used(), 0u);
}

// NaN weights or activations: only the request that met them ends.
TEST_F(SchedulerTest, LogitsThatAreNotFiniteEndTheirRequestAlone) {
  Start({.max_running_requests = 2, .num_slots = 2}, 100);
  ASSERT_TRUE(Submit(1, Task(4, 10)).ok());
  ASSERT_TRUE(Submit(2, Task(4, 10)).ok());
  ASSERT_TRUE(Plan().has_value());
  ASSERT_TRUE(Apply({.sampled = {{0, kNoToken}, {1, 5}}}).ok());
  EXPECT_EQ(DoneMessages(), "1=INTERNAL");
  EXPECT_EQ(scheduler_->num_running_requests(), 1u);
  EXPECT_EQ(Show(Plan()), "release 0 1:0");
}

// What a request left behind that was gone before its logits came fails one more and no others.
TEST_F(SchedulerTest, APrefixWithLogitsThatAreNotFiniteIsComputedAgain) {
  Start({.num_slots = 1, .block_tokens = 4}, 100);
  const GenerateTask task = Task(9, 10);
  ASSERT_TRUE(Submit(1, task).ok());
  ASSERT_TRUE(Plan().has_value());
  scheduler_->Cancel(RequestId(1), absl::CancelledError(""), &events_);
  ASSERT_TRUE(Apply({.sampled = {{0, kNoToken}}}).ok());
  ASSERT_TRUE(Submit(2, task).ok());
  EXPECT_EQ(Show(Plan()), "release 0 start 0 at 8 0:1+1");
  ASSERT_TRUE(Apply({.sampled = {{0, kNoToken}}}).ok());
  EXPECT_EQ(DoneMessages(), "1=CANCELLED 2=INTERNAL");
  ASSERT_TRUE(Submit(3, task).ok());
  EXPECT_EQ(Show(Plan()), "release 0 start 0 0:9+3");
}

TEST_F(SchedulerTest, LogProbabilitiesOfTokensThatAreNotNumbersEndTheirRequest) {
  Start({.num_slots = 2}, 100);
  GenerateTask task = Task(4, 1);
  task.best_of = 2;
  ASSERT_TRUE(Submit(1, std::move(task)).ok());
  ASSERT_TRUE(Plan().has_value());
  StepOutcome outcome{.sampled = {{0, 5}}};
  outcome.logprobs.push_back({.logprob = NAN});
  ASSERT_TRUE(Apply(std::move(outcome)).ok());
  EXPECT_EQ(DoneMessages(), "1=INTERNAL");
}

TEST_F(SchedulerTest, LogProbabilitiesThatAreNotNumbersEndTheirRequest) {
  Start({.num_slots = 2}, 100);
  ScoreTask task;
  task.sequences = {{10, 11, 12}};
  ASSERT_TRUE(scheduler_->Submit(RequestId(1), task, now_).ok());
  ASSERT_TRUE(Plan().has_value());
  StepOutcome outcome;
  outcome.scores.push_back({.slot = 0, .logprobs = {-1.0f, NAN}});
  ASSERT_TRUE(Apply(std::move(outcome)).ok());
  EXPECT_EQ(DoneMessages(), "1=INTERNAL");
}

TEST_F(SchedulerTest, FailAllEndsEverythingAndANewEpochStartsEmpty) {
  Start({.max_running_requests = 1, .num_slots = 2}, 100);
  ASSERT_TRUE(Submit(1, Task(4, 10)).ok());
  ASSERT_TRUE(Submit(2, Task(4, 10)).ok());
  ASSERT_TRUE(Plan().has_value());
  scheduler_->FailAll(absl::UnavailableError("epoch 1 is lost"), &events_);
  EXPECT_EQ(DoneMessages(), "1=UNAVAILABLE 2=UNAVAILABLE");
  scheduler_->Reset({.num_blocks = 50});
  EXPECT_EQ(scheduler_->kv(0).num_blocks(), 50u);
  ASSERT_TRUE(Submit(3, Task(4, 10)).ok());
  const auto step = Plan();
  EXPECT_EQ(Show(step), "start 0 0:4+1");
  EXPECT_EQ(step->step_id, StepId(1));
}

// Without logits the last token needs no computing: nothing follows it.
TEST_F(SchedulerTest, ScoreRunsInChunks) {
  Start({.num_slots = 4, .max_step_tokens = 4, .block_tokens = 4}, 100);
  ScoreTask task;
  task.sequences = {{10, 11, 12, 13, 14, 15}, {20}};
  ASSERT_TRUE(scheduler_->Submit(RequestId(1), task, now_).ok());
  auto step = Plan();
  EXPECT_EQ(Show(step), "start 0 0:4hs+1");
  EXPECT_THAT(step->sequences[0].score_targets, ElementsAre(11, 12, 13, 14));
  Answer(*step, 0);
  step = Plan();
  EXPECT_EQ(Show(step), "start 1 0:1hs+1 1:1hs+1");
  EXPECT_THAT(step->sequences[0].score_targets, ElementsAre(15));
  EXPECT_THAT(step->sequences[1].score_targets, IsEmpty());
  Answer(*step, 0);
  ASSERT_EQ(events_.size(), 4u);
  EXPECT_THAT(events_[0].scores->logprobs, ElementsAre(-11, -12, -13, -14));
  EXPECT_EQ(events_[0].scores->num_positions, 4u);
  EXPECT_EQ(events_[1].scores->first_position, 4u);
  EXPECT_EQ(events_[1].scores->num_positions, 2u);
  EXPECT_EQ(events_[2].scores->sequence_index, 1u);
  EXPECT_EQ(events_[2].scores->num_positions, 1u);
  EXPECT_EQ(DoneMessages(), "1=OK");
}

TEST_F(SchedulerTest, ReturnedLogitsAreBoundedPerStep) {
  Start({.num_slots = 4, .max_step_tokens = 64, .block_tokens = 4, .max_logits_rows = 3}, 100);
  ScoreTask task;
  task.sequences = {{10, 11, 12, 13}, {20, 21}};
  task.return_logits = true;
  ASSERT_TRUE(scheduler_->Submit(RequestId(1), task, now_).ok());
  auto step = Plan();
  EXPECT_EQ(Show(step), "start 0 0:3hs+1");
  Answer(*step, 0);
  step = Plan();
  EXPECT_EQ(Show(step), "start 1 0:1hs 1:2hs+1");
  EXPECT_THAT(step->sequences[0].score_targets, IsEmpty());
  Answer(*step, 0);
  EXPECT_EQ(events_[0].scores->logits.size(), 3u * kVocab * 4);
  EXPECT_EQ(DoneMessages(), "1=OK");
}

// Answers that do not fit the step are refused and change nothing.
TEST_F(SchedulerTest, WrongOutcomesAreInternalErrors) {
  Start({.num_slots = 4}, 100);
  ASSERT_TRUE(Submit(1, Task(4, 10)).ok());
  const auto step = Plan();
  const auto refusal = [&](StepOutcome outcome) {
    const absl::Status status = Apply(std::move(outcome));
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    return std::string(status.message());
  };
  EXPECT_THAT(refusal({}), HasSubstr("no token for 1 slots"));
  EXPECT_THAT(refusal({.sampled = {{1, 5}}}), HasSubstr("a token for slot 1, which does not"));
  EXPECT_THAT(refusal({.sampled = {{99, 5}}}), HasSubstr("a token for slot 99, which does not"));
  EXPECT_THAT(refusal({.sampled = {{0, 100}}}), HasSubstr("outside the vocabulary of 100"));
  EXPECT_THAT(refusal({.sampled = {{0, 5}, {0, 5}}}), HasSubstr("a token for slot 0, which does"));
  EXPECT_THAT(refusal({.sampled = {{0, 5}}, .scores = {{.slot = 0}}}),
              HasSubstr("scores for slot 0, which is not scored"));
  EXPECT_THAT(refusal({.sampled = {{0, 5}}, .logprobs = {{.logprob = -1}}}),
              HasSubstr("1 log-probabilities of sampled tokens instead of 0"));
  EXPECT_THAT(events_, IsEmpty());
  Answer(*step, 5);
  EXPECT_EQ(events_.size(), 1u);
}

}  // namespace
}  // namespace essor::coordinator
