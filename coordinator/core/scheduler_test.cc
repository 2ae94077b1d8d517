#include "coordinator/core/scheduler.h"

#include <cmath>
#include <numeric>
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
  void Start(Scheduler::Options options, uint32_t num_blocks) {
    options_ = options;
    scheduler_ = std::make_unique<Scheduler>(
        options, OutputModel{.tokenizer = nullptr, .eos_tokens = {kEos}, .vocab_size = kVocab});
    scheduler_->Reset(num_blocks);
  }

  static GenerateTask Task(uint32_t prompt_length, uint32_t max_new_tokens) {
    GenerateTask task;
    task.prompt = std::make_shared<const std::vector<TokenId>>(prompt_length, TokenId{1});
    task.max_new_tokens = max_new_tokens;
    return task;
  }

  absl::Status Submit(uint64_t id, GenerateTask task) {
    return scheduler_->Submit(RequestId(id), std::move(task), now_);
  }

  std::optional<Step> Plan() { return scheduler_->PlanStep(now_); }

  // The token every sampling slot gets.
  void Answer(const Step& step, TokenId token) {
    StepOutcome outcome;
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
    ASSERT_TRUE(scheduler_->ApplyOutcome(std::move(outcome), now_, &events_).ok());
  }

  // A step in short: "slot:tokens" per entry, with h = hold, s = score, +n = new blocks.
  static std::string Show(const std::optional<Step>& step) {
    if (!step.has_value()) return "none";
    std::string text;
    for (const uint32_t slot : step->release_slots) absl::StrAppend(&text, "release ", slot, " ");
    for (const SlotStart& start : step->starts) absl::StrAppend(&text, "start ", start.slot, " ");
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
  EXPECT_EQ(scheduler_->blocks().num_used(), 0u);
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

TEST_F(SchedulerTest, ContinuationsAreSequencesWithSeedsOfTheirOwn) {
  Start({.num_slots = 2, .max_step_tokens = 64, .block_tokens = 4}, 100);
  GenerateTask task = Task(4, 1);
  task.num_continuations = 3;
  task.sampling.seed = 11;
  ASSERT_TRUE(Submit(1, std::move(task)).ok());
  const auto step = Plan();
  EXPECT_EQ(Show(step), "start 0 start 1 0:4+1 1:4+1");
  EXPECT_EQ(step->starts[0].sampling.seed, 11u);
  EXPECT_EQ(step->starts[1].sampling.seed, ContinuationSeed(11, 1));
  EXPECT_NE(ContinuationSeed(11, 1), ContinuationSeed(11, 2));
  Answer(*step, 5);
  const auto last = Plan();
  EXPECT_EQ(Show(last), "release 0 release 1 start 0 0:4+1");
  EXPECT_EQ(DoneMessages(), "");
  Answer(*last, 5);
  EXPECT_EQ(DoneMessages(), "1=OK");
  EXPECT_EQ(scheduler_->num_running_requests(), 0u);
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
  EXPECT_EQ(scheduler_->blocks().num_used(), 0u);
}

// NaN weights or activations: only the request that met them ends.
TEST_F(SchedulerTest, LogitsThatAreNotFiniteEndTheirRequestAlone) {
  Start({.max_running_requests = 2, .num_slots = 2}, 100);
  ASSERT_TRUE(Submit(1, Task(4, 10)).ok());
  ASSERT_TRUE(Submit(2, Task(4, 10)).ok());
  ASSERT_TRUE(Plan().has_value());
  const StepOutcome outcome{.sampled = {{0, kNoToken}, {1, 5}}, .scores = {}};
  ASSERT_TRUE(scheduler_->ApplyOutcome(outcome, now_, &events_).ok());
  EXPECT_EQ(DoneMessages(), "1=INTERNAL");
  EXPECT_EQ(scheduler_->num_running_requests(), 1u);
  EXPECT_EQ(Show(Plan()), "release 0 1:0");
}

TEST_F(SchedulerTest, LogProbabilitiesThatAreNotNumbersEndTheirRequest) {
  Start({.num_slots = 2}, 100);
  ScoreTask task;
  task.sequences = {{10, 11, 12}};
  ASSERT_TRUE(scheduler_->Submit(RequestId(1), task, now_).ok());
  ASSERT_TRUE(Plan().has_value());
  StepOutcome outcome;
  outcome.scores.push_back({.slot = 0, .logprobs = {-1.0f, NAN}, .logits = {}});
  ASSERT_TRUE(scheduler_->ApplyOutcome(std::move(outcome), now_, &events_).ok());
  EXPECT_EQ(DoneMessages(), "1=INTERNAL");
}

TEST_F(SchedulerTest, FailAllEndsEverythingAndANewEpochStartsEmpty) {
  Start({.max_running_requests = 1, .num_slots = 2}, 100);
  ASSERT_TRUE(Submit(1, Task(4, 10)).ok());
  ASSERT_TRUE(Submit(2, Task(4, 10)).ok());
  ASSERT_TRUE(Plan().has_value());
  scheduler_->FailAll(absl::UnavailableError("epoch 1 is lost"), &events_);
  EXPECT_EQ(DoneMessages(), "1=UNAVAILABLE 2=UNAVAILABLE");
  scheduler_->Reset(50);
  EXPECT_EQ(scheduler_->blocks().num_blocks(), 50u);
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
  const auto apply = [&](StepOutcome outcome) {
    return scheduler_->ApplyOutcome(std::move(outcome), now_, &events_);
  };
  EXPECT_THAT(std::string(apply({}).message()), HasSubstr("no token for slot 0"));
  EXPECT_THAT(std::string(apply({.sampled = {{1, 5}}, .scores = {}}).message()),
              HasSubstr("no token for slot 0"));
  EXPECT_THAT(std::string(apply({.sampled = {{0, 100}}, .scores = {}}).message()),
              HasSubstr("outside the vocabulary of 100"));
  EXPECT_THAT(std::string(apply({.sampled = {{0, 5}, {1, 5}}, .scores = {}}).message()),
              HasSubstr("were not in the step"));
  EXPECT_EQ(apply({}).code(), absl::StatusCode::kInternal);
  EXPECT_THAT(events_, IsEmpty());
  Answer(*step, 5);
  EXPECT_EQ(events_.size(), 1u);
}

}  // namespace
}  // namespace essor::coordinator
