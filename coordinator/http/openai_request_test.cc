#include "coordinator/http/openai_request.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "common/error_details.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace essor::coordinator {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

// A body with these fields besides the prompt.
std::string Completion(const std::string& fields) {
  return absl::StrCat(R"({"prompt":"x",)", fields, "}");
}
std::string Chat(const std::string& fields) {
  return absl::StrCat(R"({"messages":[{"role":"user","content":"x"}],)", fields, "}");
}

TEST(OpenAiRequestTest, SamplingFieldsOfBothDialects) {
  const std::string fields = R"("typical_p":0.5,"min_tokens":3,"repetition_penalty":1.25,
      "presence_penalty":-1,"frequency_penalty":0.5,"logit_bias":{"50256":-100,"7":1.5},
      "best_of":4,"n":2,"priority":-3,"cache_salt":"s","min_p":0.1,"top_k":9)";
  for (bool chat : {false, true}) {
    const auto request =
        chat ? ParseChatCompletion(Chat(fields)) : ParseCompletion(Completion(fields));
    ASSERT_TRUE(request.ok()) << request.status();
    const GenerateParams& params = request->prompts[0];
    EXPECT_EQ(params.sampling.typical_p, 0.5);
    EXPECT_EQ(params.sampling.min_new_tokens, 3);
    EXPECT_EQ(params.sampling.repetition_penalty, 1.25);
    EXPECT_EQ(params.sampling.presence_penalty, -1);
    EXPECT_EQ(params.sampling.frequency_penalty, 0.5);
    EXPECT_THAT(params.sampling.logit_bias, ElementsAre(Pair(50256, -100), Pair(7, 1.5)));
    EXPECT_EQ(params.sampling.min_p, 0.1);
    EXPECT_EQ(params.sampling.top_k, 9);
    EXPECT_EQ(params.output.best_of, 4);
    EXPECT_EQ(params.service.priority, -3);
    EXPECT_EQ(params.service.cache_salt, "s");
    EXPECT_FALSE(params.output.logprobs.has_value());
    EXPECT_FALSE(request->answer.logprobs);
  }
}

TEST(OpenAiRequestTest, UserIsNotTheTenant) {
  const auto request = ParseCompletion(Completion(R"("user":"me")"));
  ASSERT_TRUE(request.ok());
  EXPECT_EQ(request->prompts[0].service.tenant, "");
}

TEST(OpenAiRequestTest, LogprobsOfCompletionsAreANumber) {
  const auto three = ParseCompletion(Completion(R"("logprobs":3)"));
  ASSERT_TRUE(three.ok());
  EXPECT_TRUE(three->answer.logprobs);
  EXPECT_EQ(three->prompts[0].output.logprobs, 3);
  EXPECT_FALSE(three->prompts[0].output.prompt_logprobs.has_value());
  const auto none = ParseCompletion(Completion(R"("logprobs":false)"));
  ASSERT_TRUE(none.ok());
  EXPECT_FALSE(none->answer.logprobs);
}

TEST(OpenAiRequestTest, LogprobsOfChatAreASwitchAndANumber) {
  const auto top = ParseChatCompletion(Chat(R"("logprobs":true,"top_logprobs":5)"));
  ASSERT_TRUE(top.ok());
  EXPECT_TRUE(top->answer.logprobs);
  EXPECT_EQ(top->prompts[0].output.logprobs, 5);
  const auto only = ParseChatCompletion(Chat(R"("logprobs":true)"));
  ASSERT_TRUE(only.ok());
  EXPECT_EQ(only->prompts[0].output.logprobs, 0);
  EXPECT_EQ(only->names.logprobs, "top_logprobs");
}

// The prompt that is echoed has log-probabilities where the rest has.
TEST(OpenAiRequestTest, EchoWithLogprobsAsksForThoseOfThePrompt) {
  const auto echo = ParseCompletion(Completion(R"("echo":true)"));
  ASSERT_TRUE(echo.ok());
  EXPECT_TRUE(echo->prompts[0].output.echo);
  EXPECT_TRUE(echo->answer.echo);
  EXPECT_FALSE(echo->prompts[0].output.prompt_logprobs.has_value());
  const auto both = ParseCompletion(Completion(R"("echo":true,"logprobs":2,"stream":true)"));
  ASSERT_TRUE(both.ok());
  EXPECT_EQ(both->prompts[0].output.prompt_logprobs, 2);
  EXPECT_FALSE(both->answer.prompt_logprobs);
  const auto apart = ParseCompletion(Completion(R"("prompt_logprobs":1)"));
  ASSERT_TRUE(apart.ok());
  EXPECT_TRUE(apart->answer.prompt_logprobs);
  EXPECT_EQ(apart->prompts[0].output.prompt_logprobs, 1);
}

TEST(OpenAiRequestTest, NamesTheBadField) {
  const struct {
    bool chat;
    const char* fields;
    const char* field;
    const char* message;
  } kCases[] = {
      {false, R"("logit_bias":[1])", "logit_bias", "must be an object"},
      {false, R"("logit_bias":{"x":1})", "logit_bias", "'x' is not a token id"},
      {false, R"("logit_bias":{"1.5":1})", "logit_bias", "'1.5' is not a token id"},
      {true, R"("logit_bias":{"5":"high"})", "logit_bias", "the bias of 5 is not a number"},
      {false, R"("logprobs":true)", "logprobs", "must be an integer"},
      {true, R"("logprobs":3)", "logprobs", "must be true or false"},
      {true, R"("top_logprobs":3)", "top_logprobs", "together with logprobs"},
      {true, R"("echo":true)", "echo", "not supported"},
      {false, R"("echo":1)", "echo", "must be true or false"},
      {false, R"("prompt_logprobs":1,"stream":true)", "prompt_logprobs", "together with stream"},
      {false, R"("best_of":2,"stream":true)", "best_of", "cannot be streamed"},
      {false, R"("priority":"high")", "priority", "must be an integer"},
      {false, R"("cache_salt":5)", "cache_salt", "must be a string"},
      {false, R"("typical_p":"a")", "typical_p", "must be a number"},
      {false, R"("min_tokens":1.5)", "min_tokens", "must be an integer"},
  };
  for (const auto& test : kCases) {
    const auto request = test.chat ? ParseChatCompletion(Chat(test.fields))
                                   : ParseCompletion(Completion(test.fields));
    EXPECT_EQ(request.status().code(), absl::StatusCode::kInvalidArgument) << test.fields;
    EXPECT_EQ(FieldOf(request.status()), test.field);
    EXPECT_THAT(std::string(request.status().message()), HasSubstr(test.message));
  }
}

}  // namespace
}  // namespace essor::coordinator
