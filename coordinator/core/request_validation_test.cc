#include "coordinator/core/request_validation.h"

#include <cmath>
#include <functional>
#include <limits>

#include "common/error_details.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace essor::coordinator {
namespace {

using testing::HasSubstr;

const ModelLimits kLimits{.vocab_size = 100, .max_context_tokens = 32};

GenerateInput ValidInput() {
  return {.prompt = {1, 2, 3}, .prompt_field = "tokens.ids", .sampling = {}, .drawn_seed = 77};
}

struct BadCase {
  const char* field;
  const char* message;
  std::function<void(GenerateInput*)> spoil;
};

// One table row per bad input: the field is named and the message says what is allowed.
TEST(RequestValidationTest, NamesTheBadField) {
  static constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  static constexpr double kInf = std::numeric_limits<double>::infinity();
  const std::vector<BadCase> cases = {
      {"sampling.temperature", "nan is not within 0 and 2",
       [](GenerateInput* in) { in->sampling.temperature = kNan; }},
      {"sampling.temperature", "-0.5 is not within 0 and 2",
       [](GenerateInput* in) { in->sampling.temperature = -0.5; }},
      {"sampling.temperature", "inf", [](GenerateInput* in) { in->sampling.temperature = kInf; }},
      {"sampling.temperature", "1e+308",
       [](GenerateInput* in) { in->sampling.temperature = 1e308; }},
      {"sampling.top_p", "nan", [](GenerateInput* in) { in->sampling.top_p = kNan; }},
      {"sampling.top_p", "greater than 0", [](GenerateInput* in) { in->sampling.top_p = 0; }},
      {"sampling.top_p", "1.5", [](GenerateInput* in) { in->sampling.top_p = 1.5; }},
      {"sampling.min_p", "-1", [](GenerateInput* in) { in->sampling.min_p = -1; }},
      {"sampling.top_k", "-1 is not within 0", [](GenerateInput* in) { in->sampling.top_k = -1; }},
      {"sampling.top_k", "", [](GenerateInput* in) { in->sampling.top_k = int64_t{1} << 40; }},
      {"sampling.n", "0 is not within 1 and 16", [](GenerateInput* in) { in->sampling.n = 0; }},
      {"sampling.n", "2147483648", [](GenerateInput* in) { in->sampling.n = int64_t{1} << 31; }},
      {"sampling.max_new_tokens", "0 is not within 1",
       [](GenerateInput* in) { in->sampling.max_new_tokens = 0; }},
      {"sampling.max_new_tokens", "-1",
       [](GenerateInput* in) { in->sampling.max_new_tokens = -1; }},
      {"sampling.max_new_tokens",
       "30 new tokens after a prompt of 3 exceed the context of 32 tokens",
       [](GenerateInput* in) { in->sampling.max_new_tokens = 30; }},
      {"sampling.stop", "17 stop strings are more than 16",
       [](GenerateInput* in) { in->sampling.stop.assign(17, "x"); }},
      {"sampling.stop", "0 bytes", [](GenerateInput* in) { in->sampling.stop = {""}; }},
      {"sampling.stop", "257 bytes",
       [](GenerateInput* in) { in->sampling.stop = {std::string(257, 'x')}; }},
      {"sampling.stop_token_ids", "id 100 is outside the vocabulary of 100",
       [](GenerateInput* in) { in->sampling.stop_token_ids = {100}; }},
      {"sampling.typical_p", "nan", [](GenerateInput* in) { in->sampling.typical_p = kNan; }},
      {"sampling.typical_p", "greater than 0",
       [](GenerateInput* in) { in->sampling.typical_p = 0; }},
      {"sampling.typical_p", "1.1", [](GenerateInput* in) { in->sampling.typical_p = 1.1; }},
      {"sampling.repetition_penalty", "0 is not within 0.01 and 10",
       [](GenerateInput* in) { in->sampling.repetition_penalty = 0; }},
      {"sampling.repetition_penalty", "inf",
       [](GenerateInput* in) { in->sampling.repetition_penalty = kInf; }},
      {"sampling.presence_penalty", "-2.5 is not within -2 and 2",
       [](GenerateInput* in) { in->sampling.presence_penalty = -2.5; }},
      {"sampling.frequency_penalty", "nan is not within -2 and 2",
       [](GenerateInput* in) { in->sampling.frequency_penalty = kNan; }},
      {"sampling.logit_bias", "1025 biases are more than 1024",
       [](GenerateInput* in) {
         in->sampling.logit_bias.assign(1025, {1, 0.5});
       }},
      {"sampling.logit_bias", "id 100 is outside the vocabulary of 100",
       [](GenerateInput* in) {
         in->sampling.logit_bias = {{100, 1}};
       }},
      {"sampling.logit_bias", "id -1 is outside",
       [](GenerateInput* in) {
         in->sampling.logit_bias = {{-1, 1}};
       }},
      {"sampling.logit_bias", "100.5 is not within -100 and 100",
       [](GenerateInput* in) {
         in->sampling.logit_bias = {{5, 100.5}};
       }},
      {"sampling.logit_bias", "nan",
       [](GenerateInput* in) {
         in->sampling.logit_bias = {{5, kNan}};
       }},
      {"sampling.logit_bias", "id 5 is given twice",
       [](GenerateInput* in) {
         in->sampling.logit_bias = {{5, 1}, {6, 1}, {5, 2}};
       }},
      {"sampling.min_new_tokens", "-1 is not within 0",
       [](GenerateInput* in) { in->sampling.min_new_tokens = -1; }},
      {"sampling.min_new_tokens", "6 is not within 0 and 5",
       [](GenerateInput* in) {
         in->sampling.max_new_tokens = 5;
         in->sampling.min_new_tokens = 6;
       }},
      {"sampling.min_new_tokens", "30 is not within 0 and 29",
       [](GenerateInput* in) { in->sampling.min_new_tokens = 30; }},
      {"logprobs", "21 is not within 0 and 20",
       [](GenerateInput* in) { in->output.logprobs = 21; }},
      {"prompt_logprobs", "-1 is not within 0 and 20",
       [](GenerateInput* in) { in->output.prompt_logprobs = -1; }},
      {"best_of", "2 is not within 3 and 16",
       [](GenerateInput* in) {
         in->sampling.n = 3;
         in->output.best_of = 2;
       }},
      {"best_of", "17 is not within 1 and 16", [](GenerateInput* in) { in->output.best_of = 17; }},
      {"priority", "-101 is not within -100 and 100",
       [](GenerateInput* in) { in->service.priority = -101; }},
      {"tenant", "printable", [](GenerateInput* in) { in->service.tenant = "a\nb"; }},
      {"tenant", "129 bytes are more than 128",
       [](GenerateInput* in) { in->service.tenant.assign(129, 't'); }},
      {"cache_salt", "printable", [](GenerateInput* in) { in->service.cache_salt = "\x80"; }},
      {"tokens.ids", "empty", [](GenerateInput* in) { in->prompt.clear(); }},
      {"tokens.ids", "id 100 at position 1 is outside the vocabulary of 100",
       [](GenerateInput* in) {
         in->prompt = {1, 100};
       }},
      {"tokens.ids", "32 tokens do not fit", [](GenerateInput* in) { in->prompt.assign(32, 1); }},
  };
  for (const BadCase& bad : cases) {
    GenerateInput input = ValidInput();
    bad.spoil(&input);
    const absl::Status status = MakeGenerateTask(input, kLimits).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad.field;
    EXPECT_EQ(FieldOf(status), bad.field);
    EXPECT_THAT(std::string(status.message()), HasSubstr(bad.message));
  }
}

TEST(RequestValidationTest, TooLongRequestsCarryTheContextReason) {
  GenerateInput input = ValidInput();
  input.sampling.max_new_tokens = 30;
  EXPECT_EQ(ReasonOf(MakeGenerateTask(input, kLimits).status()), "CONTEXT_LENGTH_EXCEEDED");
  input = ValidInput();
  input.prompt.assign(40, 1);
  EXPECT_EQ(ReasonOf(MakeGenerateTask(input, kLimits).status()), "CONTEXT_LENGTH_EXCEEDED");
}

TEST(RequestValidationTest, AppliesDefaults) {
  ModelLimits limits = kLimits;
  limits.default_temperature = 0.7;
  limits.default_top_k = 20;
  const auto task = MakeGenerateTask(ValidInput(), limits);
  ASSERT_TRUE(task.ok());
  EXPECT_FLOAT_EQ(task->sampling.temperature, 0.7f);
  EXPECT_FLOAT_EQ(task->sampling.top_p, 1.0f);
  EXPECT_EQ(task->sampling.top_k, 20);
  EXPECT_EQ(task->sampling.seed, 77u);
  EXPECT_EQ(task->max_new_tokens, 29u);  // what the context leaves
  EXPECT_EQ(task->num_continuations, 1u);
}

// Division by a tiny temperature overflows; its limit is greedy.
TEST(RequestValidationTest, TinyTemperatureIsGreedy) {
  GenerateInput input = ValidInput();
  input.sampling.temperature = 1e-30;
  EXPECT_EQ(MakeGenerateTask(input, kLimits)->sampling.temperature, 0.0f);
  input.sampling.temperature = -0.0;
  EXPECT_EQ(MakeGenerateTask(input, kLimits)->sampling.temperature, 0.0f);
}

TEST(RequestValidationTest, EverythingReachesTheTask) {
  GenerateInput input = ValidInput();
  input.sampling.typical_p = 0.5;
  input.sampling.repetition_penalty = 1.25;
  input.sampling.presence_penalty = -0.5;
  input.sampling.frequency_penalty = 0.75;
  input.sampling.logit_bias = {{9, -100}, {3, 1.5}};
  input.sampling.n = 2;
  input.output = {.logprobs = 0, .prompt_logprobs = 4, .best_of = 5, .echo = true};
  input.service = {.priority = -7, .tenant = "blue", .cache_salt = "s"};
  const auto task = MakeGenerateTask(input, kLimits);
  ASSERT_TRUE(task.ok()) << task.status();
  EXPECT_EQ(task->sampling.typical_p, 0.5f);
  EXPECT_EQ(task->sampling.repetition_penalty, 1.25f);
  EXPECT_EQ(task->sampling.presence_penalty, -0.5f);
  EXPECT_EQ(task->sampling.frequency_penalty, 0.75f);
  EXPECT_THAT(task->sampling.logit_bias,
              testing::ElementsAre(testing::Pair(9, -100.0f), testing::Pair(3, 1.5f)));
  EXPECT_EQ(task->sampling.logprobs, 0u);
  EXPECT_EQ(task->prompt_logprobs, 4u);
  EXPECT_EQ(task->num_continuations, 2u);
  EXPECT_EQ(task->best_of, 5u);
  EXPECT_TRUE(task->echo);
  EXPECT_EQ(task->service.priority, -7);
  EXPECT_EQ(task->service.tenant, "blue");
  EXPECT_EQ(task->service.cache_salt, "s");
}

TEST(RequestValidationTest, BestOfAllThatAreToldIsNothingToWaitFor) {
  GenerateInput input = ValidInput();
  input.sampling.n = 3;
  input.output.best_of = 3;
  EXPECT_EQ(MakeGenerateTask(input, kLimits)->best_of, 0u);
}

// Until the least number of tokens is there, nothing that ends the text is chosen.
TEST(RequestValidationTest, EndingTokensAreLateOnes) {
  using testing::ElementsAre;
  using testing::IsEmpty;
  ModelLimits limits = kLimits;
  limits.eos_tokens = {98, 99};
  GenerateInput input = ValidInput();
  input.sampling.stop_token_ids = {7};
  EXPECT_THAT(MakeGenerateTask(input, limits)->sampling.late_tokens, IsEmpty());
  input.sampling.min_new_tokens = 4;
  EXPECT_THAT(MakeGenerateTask(input, limits)->sampling.late_tokens, ElementsAre(7, 98, 99));
  EXPECT_EQ(MakeGenerateTask(input, limits)->sampling.min_new_tokens, 4u);
  input.sampling.ignore_eos = true;  // they do not end it
  EXPECT_THAT(MakeGenerateTask(input, limits)->sampling.late_tokens, ElementsAre(7));
}

TEST(RequestValidationTest, ATinyTypicalPIsNotOff) {
  GenerateInput input = ValidInput();
  input.sampling.typical_p = 1e-300;
  EXPECT_GT(MakeGenerateTask(input, kLimits)->sampling.typical_p, 0.0f);
}

TEST(RequestValidationTest, RequestIds) {
  EXPECT_TRUE(ValidateRequestId("").ok());
  EXPECT_TRUE(ValidateRequestId("job-17/a:b").ok());
  EXPECT_EQ(FieldOf(ValidateRequestId(std::string(129, 'a'))), "request_id");
  EXPECT_EQ(FieldOf(ValidateRequestId("two\nlines")), "request_id");
  EXPECT_EQ(FieldOf(ValidateRequestId("caf\xc3\xa9")), "request_id");
}

TEST(RequestValidationTest, ScoreSequences) {
  EXPECT_EQ(FieldOf(MakeScoreTask({.sequences = {}}, kLimits).status()), "sequences");
  EXPECT_EQ(FieldOf(MakeScoreTask({.sequences = {{1}, {}}}, kLimits).status()), "sequences[1].ids");
  EXPECT_EQ(FieldOf(MakeScoreTask({.sequences = {{100}}}, kLimits).status()), "sequences[0].ids");
  ScoreInput many;
  many.sequences.assign(1025, {1});
  EXPECT_EQ(FieldOf(MakeScoreTask(many, kLimits).status()), "sequences");
  EXPECT_EQ(FieldOf(MakeScoreTask({.sequences = {{1}}, .top_n = 21}, kLimits).status()), "top_n");
  EXPECT_EQ(
      FieldOf(MakeScoreTask({.sequences = {{1}}, .service = {.tenant = "a b"}}, kLimits).status()),
      "tenant");
  EXPECT_EQ(MakeScoreTask({.sequences = {{1}}, .top_n = 20}, kLimits)->top_n, 20u);
  ScoreInput full;
  full.sequences.assign(1, std::vector<TokenId>(32, 1));
  EXPECT_TRUE(MakeScoreTask(full, kLimits).ok());
}

}  // namespace
}  // namespace essor::coordinator
