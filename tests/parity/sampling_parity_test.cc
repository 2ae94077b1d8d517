// Choosing tokens as Hugging Face transformers does, and under every plan from what the model says.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernels/filtered_sampling.h"
#include "kernels/gumbel.h"
#include "kernels/reference/sampling.h"
#include "nlohmann/json.hpp"
#include "tests/parity/golden.h"
#include "tests/support/local_instance.h"

namespace essor::testing {
namespace {

using nlohmann::json;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// What changes a row of logits, of a whole vocabulary, by definition.
struct Changes {
  std::vector<kernels::TokenMark> marks;
  std::vector<uint32_t> marked;
  std::vector<std::pair<uint32_t, float>> biases;
  std::vector<uint32_t> blocked;

  Changes(const std::vector<TokenId>& tokens, size_t prompt_tokens, size_t vocabulary)
      : marks(vocabulary, 0) {
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (marks[tokens[i]] == 0) {
        marks[tokens[i]] = 1;
        marked.push_back(tokens[i]);
      }
      if (i >= prompt_tokens) marks[tokens[i]] += 2;
    }
  }

  void Apply(const worker::SequenceSampling& sampling, std::vector<float>* logits) const {
    const kernels::RowAdjustment row{.repetition_penalty = sampling.repetition_penalty,
                                     .presence_penalty = sampling.presence_penalty,
                                     .frequency_penalty = sampling.frequency_penalty,
                                     .marks = marks,
                                     .marked = marked,
                                     .biases = biases,
                                     .blocked = blocked};
    kernels::reference::AdjustLogits({.logits = logits->data(),
                                      .width = static_cast<uint32_t>(logits->size()),
                                      .rows = {&row, 1}});
  }
};

kernels::RowSampling RowSamplingOf(const worker::SequenceSampling& sampling, uint64_t position) {
  return {.temperature = sampling.temperature,
          .top_p = sampling.top_p,
          .top_k = sampling.top_k,
          .min_p = sampling.min_p,
          .seed = sampling.seed,
          .position = position,
          .typical_p = sampling.typical_p};
}

// The draws from each row are those among the tokens that transformers leaves, with its scores.
TEST(SamplingGoldenTest, LeavesTheTokensThatTransformersLeaves) {
  std::ifstream file(absl::StrCat(ESSOR_SOURCE_DIR, "/tests/data/golden/sampling.json"));
  const json cases = json::parse(file);
  ASSERT_GT(cases.size(), 10u);
  for (const json& one : cases) {
    const json& settings = one["settings"];
    const worker::SequenceSampling sampling{
        .temperature = settings.value("temperature", 1.0f),
        .top_p = settings.value("top_p", 1.0f),
        .top_k = settings.value("top_k", 0),
        .min_p = settings.value("min_p", 0.0f),
        .seed = 5,
        .typical_p = settings.value("typical_p", 1.0f),
        .repetition_penalty = settings.value("repetition_penalty", 1.0f)};
    auto tokens = one["prompt"].get<std::vector<TokenId>>();
    const size_t prompt_tokens = tokens.size();
    const auto generated = one["generated"].get<std::vector<TokenId>>();
    tokens.insert(tokens.end(), generated.begin(), generated.end());
    auto logits = one["logits"].get<std::vector<float>>();
    Changes changes(tokens, prompt_tokens, logits.size());
    for (const json& bias : settings["bias"]) changes.biases.emplace_back(bias[0], bias[1]);
    if (generated.size() < settings.value("min_new_tokens", 0u)) {
      changes.blocked.push_back(one["eos"]);
    }
    changes.Apply(sampling, &logits);

    const auto kept = one["kept"].get<std::vector<uint32_t>>();
    const auto scores = one["scores"].get<std::vector<float>>();
    for (size_t i = 0; i < kept.size(); ++i) {
      const float score = logits[kept[i]] / sampling.temperature;
      ASSERT_NEAR(score, scores[i], 1e-6f * (1 + std::abs(scores[i]))) << settings;
    }
    for (uint64_t position = 0; position < 500; ++position) {
      kernels::Candidate best = {-kInfinity, 0};
      for (const uint32_t id : kept) {
        const kernels::Candidate drawn = {
            logits[id] / sampling.temperature + kernels::Gumbel(sampling.seed, position, id), id};
        if (kernels::Better(drawn, best)) best = drawn;
      }
      ASSERT_EQ(kernels::SampleFiltered(logits, RowSamplingOf(sampling, position)), best.id)
          << settings << " at " << position;
    }
  }
}

double LogProbability(const std::vector<float>& logits, TokenId token) {
  double sum = 0;
  const float max = *std::max_element(logits.begin(), logits.end());
  for (const float logit : logits) sum += std::exp(double{logit} - max);
  return double{logits[token]} - max - std::log(sum);
}

struct PlanCase {
  const char* family;
  const char* plan;
};

class SamplingPlanTest : public ::testing::TestWithParam<PlanCase> {
 protected:
  static constexpr uint32_t kNewTokens = 24;

  void SetUp() override {
    const auto golden = ReadGolden(GetParam().family);
    ASSERT_TRUE(golden.ok()) << golden.status();
    for (const GoldenPrompt& prompt : golden->prompts) {
      if (prompt.ids.size() > prompt_.size()) prompt_ = prompt.ids;
    }
    ASSERT_GT(prompt_.size(), 10u);
    ASSERT_LT(prompt_.size() + kNewTokens, 128u);
    auto instance = LocalInstance::Create(
        {.model_path = absl::StrCat(ESSOR_SOURCE_DIR, "/tests/data/nano/", GetParam().family),
         .plan = GetParam().plan,
         .limits = {.block_tokens = 8,
                    .max_step_tokens = 128,
                    .max_sequences = 2,
                    .max_context_tokens = 128},
         .num_blocks = 32});
    ASSERT_TRUE(instance.ok()) << instance.status();
    instance_ = *std::move(instance);
  }

  worker::SequenceSampling Sampling() const {
    return {.temperature = 0.9f,
            .top_p = 0.95f,
            .seed = 11,
            .typical_p = 0.95f,
            .repetition_penalty = 1.2f,
            .presence_penalty = 0.5f,
            .frequency_penalty = 0.3f,
            .logit_bias = {{5, 2.0f}, {200, 3.0f}, {7, -4.0f}},
            .late_tokens = {200, 1},
            .min_new_tokens = 6,
            .logprobs = 3};
  }

  // `tokens` (empty: the last one sampled) in the slot; everything about the token after them.
  absl::StatusOr<worker::StepOutput> Step(const std::optional<worker::SequenceSampling>& start,
                                          const std::vector<TokenId>& tokens, bool sample) {
    worker::StepInput input;
    worker::StepInput::Sequence sequence{
        .slot = 1, .tokens = tokens, .sample = sample, .return_logits = true};
    if (start.has_value()) {
      input.starts.push_back(
          {.slot = 1, .sampling = *start, .prompt_tokens = static_cast<uint32_t>(prompt_.size())});
      for (uint32_t block = 0; block < 16; ++block) sequence.new_blocks.push_back(block);
    }
    input.sequences.push_back(std::move(sequence));
    return instance_->Run(input);
  }

  absl::Status Release() {
    worker::StepInput input;
    input.release_slots = {1};
    return instance_->Run(input).status();
  }

  // The logits of the step's last row.
  std::vector<float> LastLogits(const worker::StepOutput& output) const {
    const std::vector<float>& all = output.scored[0].logits;
    return {all.end() - instance_->spec().vocab_size, all.end()};
  }

  std::vector<TokenId> prompt_;
  std::unique_ptr<LocalInstance> instance_;
};

// Every token is the one that the logits of its step give by definition, whatever the plan, with a
// prompt in two chunks.
TEST_P(SamplingPlanTest, TokensFollowFromTheLogits) {
  const worker::SequenceSampling sampling = Sampling();
  const std::vector<TokenId> head(prompt_.begin(), prompt_.begin() + 5);
  std::vector<TokenId> next(prompt_.begin() + 5, prompt_.end());
  ASSERT_TRUE(Step(sampling, head, false).ok());
  std::vector<TokenId> tokens = prompt_;
  for (uint32_t i = 0; i < kNewTokens; ++i) {
    const auto output = Step(std::nullopt, next, true);
    next.clear();
    ASSERT_TRUE(output.ok()) << output.status();
    ASSERT_EQ(output->sampled.size(), 1u);
    const std::vector<float> logits = LastLogits(*output);
    Changes changes(tokens, prompt_.size(), logits.size());
    changes.biases = sampling.logit_bias;
    if (i < sampling.min_new_tokens) changes.blocked = sampling.late_tokens;
    std::vector<float> changed = logits;
    changes.Apply(sampling, &changed);
    const TokenId token = output->sampled[0].token;
    ASSERT_EQ(token, kernels::SampleFiltered(changed, RowSamplingOf(sampling, tokens.size())))
        << "token " << i;

    ASSERT_EQ(output->logprobs.size(), 1u);
    const worker::TokenLogprob& logprob = output->logprobs[0];
    EXPECT_NEAR(logprob.logprob, LogProbability(logits, token), 1e-5);
    ASSERT_EQ(logprob.top.size(), 3u);
    EXPECT_EQ(logprob.top[0].first,
              std::max_element(logits.begin(), logits.end()) - logits.begin());
    EXPECT_GE(logprob.top[1].second, logprob.top[2].second);
    EXPECT_NEAR(logprob.top[2].second, LogProbability(logits, logprob.top[2].first), 1e-5);
    tokens.push_back(token);
  }
  EXPECT_TRUE(Release().ok());
}

// Computing anew what was generated before, as after a preemption, changes no token.
TEST_P(SamplingPlanTest, RecomputingChangesNoToken) {
  const worker::SequenceSampling sampling = Sampling();
  std::vector<TokenId> tokens = prompt_;
  for (uint32_t i = 0; i < kNewTokens; ++i) {
    const auto output = i == 0 ? Step(sampling, prompt_, true) : Step(std::nullopt, {}, true);
    ASSERT_TRUE(output.ok()) << output.status();
    tokens.push_back(output->sampled[0].token);
  }
  ASSERT_TRUE(Release().ok());
  for (uint32_t again : {1u, 7u, kNewTokens - 1}) {
    const std::vector<TokenId> known(tokens.begin(), tokens.begin() + prompt_.size() + again);
    const auto output = Step(sampling, known, true);
    ASSERT_TRUE(output.ok()) << output.status();
    EXPECT_EQ(output->sampled[0].token, tokens[known.size()]) << "after " << again;
    ASSERT_TRUE(Release().ok());
  }
}

INSTANTIATE_TEST_SUITE_P(
    Plans, SamplingPlanTest,
    ::testing::Values(PlanCase{"qwen3_moe", "tp=1"}, PlanCase{"qwen3_moe", "tp=2"},
                      PlanCase{"qwen3_moe", "pp=2,ep=2"}, PlanCase{"deepseek_v3", "tp=2,ep=2"},
                      PlanCase{"llama", "pp=2,tp=2"}),
    [](const auto& test) {
      std::string name = absl::StrCat(test.param.family, "_", test.param.plan);
      std::replace_if(
          name.begin(), name.end(), [](char c) { return c == '=' || c == ','; }, '_');
      return name;
    });

}  // namespace
}  // namespace essor::testing
