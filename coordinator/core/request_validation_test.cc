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
  ScoreInput full;
  full.sequences.assign(1, std::vector<TokenId>(32, 1));
  EXPECT_TRUE(MakeScoreTask(full, kLimits).ok());
}

}  // namespace
}  // namespace essor::coordinator
