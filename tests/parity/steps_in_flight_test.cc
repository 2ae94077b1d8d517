// Steps that are submitted before those before them are done give the tokens of steps one at a
// time: decoding from tokens that nobody has seen yet, chunks of one prompt in consecutive steps,
// slots that go to another sequence while a token for the one before is still on its way.
#include <algorithm>
#include <cstdint>
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "gtest/gtest.h"
#include "model/plan/parallel_plan.h"
#include "tests/support/local_instance.h"

namespace essor::testing {
namespace {

constexpr uint32_t kBlockTokens = 8;
constexpr uint32_t kBlocksEach = 6;
constexpr uint32_t kSlots = 6;  // of a data-parallel group

struct Case {
  const char* family;
  const char* plan;
  bool shared_memory = true;
  uint32_t ranks_per_worker = 1;
};

std::unique_ptr<LocalInstance> Instance(const Case& test) {
  auto instance = LocalInstance::Create(
      {.model_path = absl::StrCat(ESSOR_SOURCE_DIR, "/tests/data/nano/", test.family),
       .plan = test.plan,
       .precision = worker::Precision::kBFloat16,
       .limits = {.block_tokens = kBlockTokens,
                  .max_step_tokens = 64,
                  .max_sequences = kSlots,
                  .max_context_tokens = kBlockTokens * kBlocksEach},
       .num_blocks = kSlots * kBlocksEach,
       .ranks_per_worker = test.ranks_per_worker,
       .allow_shared_memory = test.shared_memory});
  EXPECT_TRUE(instance.ok()) << instance.status();
  return instance.ok() ? *std::move(instance) : nullptr;
}

struct Request {
  std::vector<TokenId> prompt;
  uint32_t count = 0;  // new tokens wanted
  worker::SequenceSampling sampling;
  std::vector<TokenId> tokens;  // that came back

  // As far as steps for it were submitted.
  uint32_t submitted_prompt = 0;
  uint32_t submitted_tokens = 0;
};

std::vector<Request> SomeRequests(uint32_t count, uint32_t vocab_size) {
  std::mt19937 random(11);
  std::vector<Request> requests(count);
  for (uint32_t i = 0; i < count; ++i) {
    Request& request = requests[i];
    request.prompt.resize(1 + random() % 20);
    for (TokenId& token : request.prompt) token = random() % vocab_size;
    request.count = 1 + random() % 12;
    if (i % 2 == 1) request.sampling = {.temperature = 0.9f, .seed = i};
    if (i % 3 == 1) request.sampling.top_p = 0.8f;
    if (i % 3 != 2) continue;  // else tokens depend on those of all steps before
    request.sampling.repetition_penalty = 1.5f;
    request.sampling.frequency_penalty = 1;
  }
  return requests;
}

// Runs requests over the slots with up to `in_flight_max` steps under way, which sequences take
// part in a step being left to chance. A sequence leaves its slot in the step after the one that
// samples its last token, or one more, which nobody asked for.
class Crowd {
 public:
  Crowd(LocalInstance* instance, std::vector<Request>* requests, uint32_t num_groups,
        uint32_t in_flight_max, uint32_t seed)
      : instance_(*instance),
        requests_(*requests),
        in_flight_max_(in_flight_max),
        random_(seed),
        slots_(size_t{num_groups} * kSlots, nullptr) {}

  absl::Status Run() {
    size_t next = 0;
    while (next < requests_.size() || Busy()) {
      Pending pending;
      worker::StepInput step;
      for (uint32_t slot = 0; slot < slots_.size(); ++slot) {
        if (slots_[slot] != nullptr && IsOver(*slots_[slot])) {
          step.release_slots.push_back(slot);
          slots_[slot] = nullptr;
        }
        if (slots_[slot] == nullptr && next < requests_.size()) {
          slots_[slot] = &requests_[next++];
          step.starts.push_back({.slot = slot, .sampling = slots_[slot]->sampling});
        }
        if (slots_[slot] != nullptr && random_() % 3 != 0) Extend(slot, &step, &pending);
      }
      if (in_flight_.size() == in_flight_max_) ESSOR_RETURN_IF_ERROR(TakeOldest());
      ESSOR_ASSIGN_OR_RETURN(pending.step, instance_.Submit(step));
      in_flight_.push_back(std::move(pending));
    }
    while (!in_flight_.empty()) ESSOR_RETURN_IF_ERROR(TakeOldest());
    return absl::OkStatus();
  }

 private:
  struct Pending {
    StepId step;
    std::vector<Request*> sampled;  // in the step's order
  };

  bool Busy() const {
    return std::any_of(slots_.begin(), slots_.end(), [](const Request* r) { return r != nullptr; });
  }

  bool IsOver(const Request& request) {
    if (request.submitted_tokens < request.count) return false;
    return request.submitted_tokens > request.count || random_() % 2 == 0;
  }

  void Extend(uint32_t slot, worker::StepInput* step, Pending* pending) {
    Request& request = *slots_[slot];
    worker::StepInput::Sequence sequence{.slot = slot};
    if (request.submitted_prompt == 0) {
      std::vector<uint32_t> blocks;
      for (uint32_t i = 0; i < kBlocksEach; ++i)
        blocks.push_back(kBlocksEach * (slot % kSlots) + i);
      instance_.AddBlocks(blocks, &sequence);
    }
    const auto left = static_cast<uint32_t>(request.prompt.size()) - request.submitted_prompt;
    if (left > 0) {
      const uint32_t chunk = std::min<uint32_t>(left, 1 + random_() % 8);
      const auto first = request.prompt.begin() + request.submitted_prompt;
      sequence.tokens = {first, first + chunk};
      request.submitted_prompt += chunk;
      sequence.sample = chunk == left;
    }
    if (sequence.sample) {
      ++request.submitted_tokens;
      pending->sampled.push_back(&request);
    }
    step->sequences.push_back(std::move(sequence));
  }

  absl::Status TakeOldest() {
    const Pending oldest = std::move(in_flight_.front());
    in_flight_.pop_front();
    ESSOR_ASSIGN_OR_RETURN(const worker::StepOutput output, instance_.Await(oldest.step));
    if (output.sampled.size() != oldest.sampled.size()) {
      return absl::InternalError(
          absl::StrCat(output.sampled.size(), " tokens came back, not ", oldest.sampled.size()));
    }
    for (size_t i = 0; i < output.sampled.size(); ++i) {
      Request& request = *oldest.sampled[i];
      if (request.tokens.size() < request.count) request.tokens.push_back(output.sampled[i].token);
    }
    return absl::OkStatus();
  }

  LocalInstance& instance_;
  std::vector<Request>& requests_;
  const uint32_t in_flight_max_;
  std::mt19937 random_;
  std::vector<Request*> slots_;
  std::deque<Pending> in_flight_;
};

class StepsInFlightTest : public ::testing::TestWithParam<Case> {};

TEST_P(StepsInFlightTest, TokensAreThoseOfOneStepAtATime) {
  const auto instance = Instance(GetParam());
  ASSERT_NE(instance, nullptr);
  const auto plan = model::ParallelPlan::Parse(GetParam().plan);
  ASSERT_TRUE(plan.ok()) << plan.status();
  const std::vector<Request> requests = SomeRequests(24, instance->spec().vocab_size);
  std::vector<std::vector<TokenId>> expected;
  for (const Request& request : requests) {
    auto tokens = instance->Generate(request.prompt, request.count, request.sampling);
    ASSERT_TRUE(tokens.ok()) << tokens.status();
    expected.push_back(*std::move(tokens));
  }
  for (uint32_t in_flight = 1; in_flight <= plan->StepsInFlightMax(); ++in_flight) {
    for (const uint32_t seed : {1u, 2u}) {
      std::vector<Request> crowd = requests;
      const absl::Status status = Crowd(instance.get(), &crowd, plan->dp, in_flight, seed).Run();
      ASSERT_TRUE(status.ok()) << status;
      for (size_t i = 0; i < crowd.size(); ++i) {
        EXPECT_EQ(crowd[i].tokens, expected[i])
            << "request " << i << ", " << in_flight << " steps in flight, seed " << seed;
      }
    }
  }
}

std::string CaseName(const ::testing::TestParamInfo<Case>& test) {
  std::string name =
      absl::StrCat(test.param.family, "_", test.param.plan, test.param.shared_memory ? "" : "_tcp");
  std::replace_if(
      name.begin(), name.end(), [](char c) { return !isalnum(static_cast<unsigned char>(c)); },
      '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(
    Plans, StepsInFlightTest,
    ::testing::Values(Case{"qwen3_moe", "tp=1"}, Case{"qwen3_moe", "tp=2"},
                      Case{"qwen3_moe", "pp=2"}, Case{"qwen3_moe", "pp=2", false},
                      Case{"deepseek_v3", "pp=3", false}, Case{"qwen3_moe", "pp=2,tp=2"},
                      Case{"gpt_oss", "pp=2"}, Case{"qwen3_next", "pp=3"},
                      Case{"minimax_text_01", "pp=2,ep=2"}, Case{"deepseek_v3", "pp=3"},
                      Case{"qwen3_moe", "dp=2,ep=2"}, Case{"qwen3_next", "pp=2,dp=2,ep=2"},
                      Case{"gpt_oss", "pp=2,dp=2,ep=2", false, 2}),
    CaseName);

TEST(StepsInFlightLimitTest, OneStepMoreThanThePlanAllowsIsRefused) {
  const auto instance = Instance({"qwen3_moe", "pp=2"});
  ASSERT_NE(instance, nullptr);
  // A first step that takes its time.
  worker::StepInput step;
  step.starts.push_back({.slot = 0, .sampling = {}});
  step.sequences.push_back({.slot = 0, .tokens = std::vector<TokenId>(40, 1)});
  instance->AddBlocks({0, 1, 2, 3, 4}, &step.sequences[0]);
  absl::Status status;
  for (int i = 0; i < 1000 && status.ok(); ++i) {
    status = instance->Submit(step).status();
    step = {};
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
}

// A step that contradicts the ones before ends the epoch, also while others are under way.
TEST(StepsInFlightLimitTest, ABadStepEndsThoseBehindIt) {
  const auto instance = Instance({"qwen3_moe", "pp=2"});
  ASSERT_NE(instance, nullptr);
  worker::StepInput good;
  good.starts.push_back({.slot = 0, .sampling = {}});
  good.sequences.push_back({.slot = 0, .tokens = {1, 2, 3}});
  instance->AddBlocks({0}, &good.sequences[0]);
  worker::StepInput bad;
  bad.release_slots = {1};
  worker::StepInput next;
  next.sequences.push_back({.slot = 0});
  ASSERT_TRUE(instance->Submit(good).ok());
  const auto second = instance->Submit(bad);
  const auto third = instance->Submit(next);
  ASSERT_TRUE(second.ok() && third.ok());
  EXPECT_EQ(instance->Await(*second).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(instance->Await(*third).ok());
}

// Two ranks refuse the step, and with it the epoch; the other two wait for them until the epoch is
// aborted. Whatever is submitted meanwhile is dropped.
TEST(StepsInFlightLimitTest, ABadStepOfOneGroupEndsTheOthers) {
  const auto instance = Instance({"qwen3_moe", "dp=2,tp=2,ep=4", true, 4});
  ASSERT_NE(instance, nullptr);
  worker::StepInput bad;
  bad.sequences.push_back({.slot = 0, .tokens = {1, 2, 3}});  // never started
  bad.starts.push_back({.slot = kSlots, .sampling = {}});
  bad.sequences.push_back({.slot = kSlots, .tokens = {1, 2, 3}});
  instance->AddBlocks({0}, &bad.sequences[1]);
  const auto step = instance->Submit(bad);
  ASSERT_TRUE(step.ok()) << step.status();
  const absl::Status status = instance->Await(*step).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_EQ(status.message(), "slot 0 is not running");
  for (int i = 0; i < 20; ++i) {
    const absl::Status next = instance->Submit({}).status();
    EXPECT_TRUE(next.ok()) << next;
  }
}

}  // namespace
}  // namespace essor::testing
