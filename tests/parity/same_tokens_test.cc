// The same request gives the same tokens: alone, in a crowd, in any order of arrival, with and
// without the prefix cache, in chunks of any size, put back and computed again, in one
// data-parallel group or another, under stages. The production scheduler drives real ranks over the
// messages of cluster.proto; every answer is compared bit for bit with that of the request alone on
// one rank.
//
// ESSOR_SAME_TOKENS_MODEL=<model> tries that model too (with ESSOR_SAME_TOKENS_REQUESTS requests,
// 1000 by default), which the committed nano models stand for otherwise.
#include <algorithm>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "coordinator/core/scheduler.h"
#include "coordinator/service/cluster_codec.h"
#include "gtest/gtest.h"
#include "tests/support/local_instance.h"
#include "worker/session/conversions.h"

namespace essor::testing {
namespace {

using coordinator::GenerateTask;
using coordinator::RequestEvent;
using coordinator::Scheduler;

struct Variant {
  std::string name;
  std::string plan = "tp=1";
  uint32_t num_slots = 16;
  uint32_t max_step_tokens = 512;
  uint32_t num_blocks = 2048;  // per group
  bool prefix_cache = true;
  uint32_t reserve_new_tokens = 1000;
  uint64_t order_seed = 0;  // of arrival; 0 = as made
  uint32_t at_once = 64;    // requests that are alive together
  bool expects_preemption = false;
};

constexpr absl::Duration kStepTime = absl::Milliseconds(5);

const Variant kAlone = {.name = "alone", .num_slots = 1, .prefix_cache = false, .at_once = 1};

std::vector<Variant> Variants() {
  std::vector<Variant> variants = {
      {.name = "in a crowd", .prefix_cache = false},
      {.name = "in another order", .order_seed = 1},
      {.name = "with a prefix cache"},
      {.name = "one at a time with a prefix cache", .num_slots = 1, .at_once = 1},
      {.name = "put back", .num_blocks = 60, .reserve_new_tokens = 0, .expects_preemption = true},
      {.name = "dp=2", .plan = "dp=2,ep=2", .order_seed = 2},
      {.name = "dp=2, put back",
       .plan = "dp=2,ep=2",
       .num_blocks = 60,
       .reserve_new_tokens = 0,
       .order_seed = 3,
       .expects_preemption = true},
      {.name = "pp=2", .plan = "pp=2", .order_seed = 4},
  };
  for (const uint32_t chunk : {16u, 64u, 256u, 4096u}) {
    variants.push_back(
        {.name = absl::StrCat("chunks of ", chunk), .max_step_tokens = chunk, .order_seed = chunk});
  }
  return variants;
}

// Prompts that begin alike and go on otherwise, and every kind of sampling.
std::vector<GenerateTask> RandomTasks(uint32_t count, uint32_t vocab_size) {
  std::mt19937_64 random(20261125);
  const auto draw = [&](uint32_t low, uint32_t high) {
    return low + static_cast<uint32_t>(random() % (high - low + 1));
  };
  std::vector<std::vector<TokenId>> texts(6);
  for (std::vector<TokenId>& text : texts) {
    for (int i = 0; i < 48; ++i) text.push_back(draw(0, vocab_size - 1));
  }
  std::vector<GenerateTask> tasks;
  for (uint32_t i = 0; i < count; ++i) {
    std::vector<TokenId> prompt = texts[draw(0, 5)];
    prompt.resize(draw(1, 48));
    // One in sixteen is longer than the larger chunks.
    for (uint32_t more = draw(0, 15) == 0 ? draw(100, 300) : draw(0, 12); more > 0; --more) {
      prompt.push_back(draw(0, vocab_size - 1));
    }
    GenerateTask task;
    task.prompt = std::make_shared<const std::vector<TokenId>>(std::move(prompt));
    task.max_new_tokens = draw(1, 10);
    task.num_continuations = draw(0, 15) == 0 ? 3 : 1;
    task.ignore_eos = true;
    // Ends that are known only when the next step is on its way.
    for (uint32_t more = draw(0, 3) == 0 ? vocab_size / 8 : 0; more > 0; --more) {
      task.stop_token_ids.push_back(draw(0, vocab_size - 1));
    }
    task.sampling.temperature = draw(0, 2) == 0 ? 0.0f : 1.0f;
    task.sampling.seed = random();
    if (draw(0, 3) == 0) task.sampling.top_k = static_cast<int32_t>(draw(2, 20));
    if (draw(0, 3) == 0) task.sampling.top_p = 0.8f;
    if (draw(0, 5) == 0) task.sampling.min_p = 0.05f;
    if (draw(0, 5) == 0) task.sampling.presence_penalty = 0.5f;
    if (draw(0, 5) == 0) task.sampling.repetition_penalty = 1.3f;
    tasks.push_back(std::move(task));
  }
  return tasks;
}

// By request and continuation.
using Answers = std::map<std::pair<uint64_t, uint32_t>, std::vector<TokenId>>;

class Cluster {
 public:
  Cluster(const std::string& model, worker::Precision precision, const Variant& variant)
      : variant_(variant) {
    LocalInstance::Options options;
    options.model_path = model;
    options.plan = variant.plan;
    options.precision = precision;
    options.limits = {.block_tokens = 8,
                      .max_step_tokens = variant.max_step_tokens,
                      .max_sequences = variant.num_slots,
                      .max_context_tokens = 400};
    options.num_blocks = variant.num_blocks;
    options.num_snapshots = 8;
    auto instance = LocalInstance::Create(options);
    EXPECT_TRUE(instance.ok()) << instance.status();
    if (!instance.ok()) return;
    instance_ = *std::move(instance);
    const auto plan = model::ParallelPlan::Parse(variant.plan);
    scheduler_ = std::make_unique<Scheduler>(
        Scheduler::Options{.max_running_requests = 2 * variant.num_slots,
                           .max_queued_requests = 1000,
                           .num_groups = plan->dp,
                           .num_stages = plan->pp,
                           .num_slots = variant.num_slots,
                           .max_step_tokens = variant.max_step_tokens,
                           .block_tokens = 8,
                           .kinds = instance_->kinds(),
                           .prefix_cache = variant.prefix_cache,
                           .reserve_new_tokens = variant.reserve_new_tokens},
        coordinator::OutputModel{
            .tokenizer = nullptr, .eos_tokens = {}, .vocab_size = instance_->spec().vocab_size});
    scheduler_->Reset({.num_blocks = variant.num_blocks,
                       .num_window_blocks = variant.num_blocks,
                       .num_snapshots = 8});
  }

  bool ok() const { return instance_ != nullptr; }

  Answers Run(const std::vector<GenerateTask>& tasks) {
    std::vector<uint64_t> order(tasks.size());
    for (uint64_t i = 0; i < order.size(); ++i) order[i] = i;
    if (variant_.order_seed != 0) {
      std::shuffle(order.begin(), order.end(), std::mt19937_64(variant_.order_seed));
    }
    size_t next = 0;
    while (next < order.size() || alive_ > 0) {
      for (; next < order.size() && alive_ < variant_.at_once; ++next, ++alive_) {
        const absl::Status status =
            scheduler_->Submit(coordinator::RequestId(order[next] + 1), tasks[order[next]], now_);
        EXPECT_TRUE(status.ok()) << status;
      }
      Plan();
      if (steps_.empty() || !Complete()) break;
    }
    EXPECT_EQ(alive_, 0u) << "requests did not end";
    while (!steps_.empty() && Complete()) continue;
    EXPECT_EQ(scheduler_->kv(0).num_used(), 0u);
    EXPECT_TRUE(!variant_.expects_preemption || scheduler_->num_preemptions() > 10);
    if (tasks.size() >= 1000) {
      EXPECT_EQ(scheduler_->cached_tokens() > 100, variant_.prefix_cache);
    }
    // The tokens that stop are met where there are few others.
    const bool stops = tasks.size() >= 1000 && instance_->spec().vocab_size <= 1000;
    if (stops) {
      EXPECT_GT(scheduler_->discarded_tokens(), 10u);
    }
    return std::move(answers_);
  }

 private:
  void Plan() {
    while (scheduler_->num_in_flight() < scheduler_->max_in_flight()) {
      const auto step = scheduler_->PlanStep(now_);
      if (!step.has_value()) return;
      const v1::CoordinatorMessage message =
          coordinator::ToProto(*step, Epoch(1), absl::Seconds(60));
      const auto submitted =
          instance_->Submit(worker::FromProto(message.step(), Clock::Steady().Now()));
      EXPECT_TRUE(submitted.ok()) << submitted.status();
      if (!submitted.ok()) return;
      steps_.push_back(*submitted);
    }
  }

  bool Complete() {
    const auto output = instance_->Await(steps_.front());
    steps_.pop_front();
    EXPECT_TRUE(output.ok()) << output.status();
    if (!output.ok()) return false;
    v1::StepResult result;
    worker::ToProto(*output, 1, &result);
    auto outcome = coordinator::FromProto(&result);
    std::vector<RequestEvent> events;
    now_ += kStepTime;
    const absl::Status status = scheduler_->ApplyOutcome(std::span(&*outcome, 1), now_, &events);
    EXPECT_TRUE(status.ok()) << status;
    for (RequestEvent& event : events) Take(&event);
    return status.ok();
  }

  void Take(RequestEvent* event) {
    if (event->tokens.has_value()) {
      auto& answer = answers_[{event->request.value(), event->tokens->index}];
      answer.insert(answer.end(), event->tokens->token_ids.begin(), event->tokens->token_ids.end());
    }
    if (!event->done.has_value()) return;
    EXPECT_TRUE(event->done->ok()) << *event->done;
    --alive_;
  }

  const Variant variant_;
  std::unique_ptr<LocalInstance> instance_;
  std::unique_ptr<Scheduler> scheduler_;
  std::deque<StepId> steps_;
  size_t alive_ = 0;
  absl::Time now_ = absl::UnixEpoch();  // the scheduler's: chunks are the same in every run
  Answers answers_;
};

void ExpectSameTokens(const std::string& model, worker::Precision precision,
                      uint32_t num_requests) {
  Cluster alone(model, precision, kAlone);
  ASSERT_TRUE(alone.ok());
  const std::vector<GenerateTask> tasks = RandomTasks(num_requests, 100);
  const Answers expected = alone.Run(tasks);
  ASSERT_GE(expected.size(), num_requests);
  for (const Variant& variant : Variants()) {
    SCOPED_TRACE(variant.name);
    Cluster cluster(model, precision, variant);
    ASSERT_TRUE(cluster.ok());
    const Answers answers = cluster.Run(tasks);
    size_t different = 0;
    for (const auto& [key, tokens] : expected) {
      const auto found = answers.find(key);
      if (found == answers.end() || found->second != tokens) ++different;
    }
    EXPECT_EQ(different, 0u) << "of " << expected.size() << " answers";
  }
}

std::string NanoModel(const std::string& name) {
  return absl::StrCat(ESSOR_SOURCE_DIR, "/tests/data/nano/", name);
}

class SameTokensTest : public ::testing::TestWithParam<const char*> {};

TEST_P(SameTokensTest, WhateverIsAround) {
  ExpectSameTokens(NanoModel(GetParam()), worker::Precision::kFloat32, 1000);
}

INSTANTIATE_TEST_SUITE_P(Models, SameTokensTest,
                         ::testing::Values("deepseek_v3", "qwen3_next", "gpt_oss"),
                         [](const auto& model) { return std::string(model.param); });

TEST(SameTokensOfAModelTest, WhateverIsAround) {
  const char* const model = std::getenv("ESSOR_SAME_TOKENS_MODEL");
  if (model == nullptr) GTEST_SKIP() << "ESSOR_SAME_TOKENS_MODEL names no model";
  uint32_t num_requests = 1000;
  const char* const text = std::getenv("ESSOR_SAME_TOKENS_REQUESTS");
  ASSERT_TRUE(text == nullptr || absl::SimpleAtoi(text, &num_requests)) << text;
  ExpectSameTokens(model, worker::Precision::kStored, num_requests);
}

}  // namespace
}  // namespace essor::testing
