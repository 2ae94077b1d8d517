#include "client/cli/sampling_flags.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace essor::cli {
namespace {

using ::testing::HasSubstr;

absl::Status Check(const std::vector<std::string>& arguments, SamplingFlags* flags = nullptr) {
  CLI::App app;
  SamplingFlags parsed;
  AddSamplingFlags(app, parsed, "0");
  // CLI11 takes the arguments last first.
  app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  if (flags != nullptr) *flags = parsed;
  return CheckSamplingFlags(parsed);
}

TEST(SamplingFlagsTest, OnlyWhatIsGivenIsSent) {
  SamplingFlags flags;
  ASSERT_TRUE(Check({}, &flags).ok());
  EXPECT_EQ(ToSamplingParams(flags).ByteSizeLong(), 0);
}

TEST(SamplingFlagsTest, EveryFlagReachesTheRequest) {
  SamplingFlags flags;
  ASSERT_TRUE(Check({"--temperature",
                     "0.5",
                     "--top-p",
                     "0.25",
                     "--top-k",
                     "7",
                     "--min-p",
                     "0.125",
                     "--seed",
                     "18446744073709551615",
                     "--max-new-tokens",
                     "9",
                     "--ignore-eos",
                     "--stop",
                     "a",
                     "--stop",
                     "b",
                     "--typical-p",
                     "0.75",
                     "--repetition-penalty",
                     "1.5",
                     "--presence-penalty",
                     "-1",
                     "--frequency-penalty",
                     "0.5",
                     "--logit-bias",
                     "7=-2.5",
                     "--logit-bias",
                     "8=3",
                     "--min-new-tokens",
                     "4"},
                    &flags)
                  .ok());
  const v1::SamplingParams params = ToSamplingParams(flags);
  EXPECT_EQ(params.temperature(), 0.5F);
  EXPECT_EQ(params.top_p(), 0.25F);
  EXPECT_EQ(params.top_k(), 7);
  EXPECT_EQ(params.min_p(), 0.125F);
  EXPECT_EQ(params.seed(), 18446744073709551615U);
  EXPECT_EQ(params.max_new_tokens(), 9);
  EXPECT_TRUE(params.ignore_eos());
  EXPECT_THAT(params.stop(), testing::ElementsAre("a", "b"));
  EXPECT_EQ(params.typical_p(), 0.75F);
  EXPECT_EQ(params.repetition_penalty(), 1.5F);
  EXPECT_EQ(params.presence_penalty(), -1);
  EXPECT_EQ(params.frequency_penalty(), 0.5F);
  ASSERT_EQ(params.logit_bias().size(), 2);
  EXPECT_EQ(params.logit_bias().at(7), -2.5F);
  EXPECT_EQ(params.logit_bias().at(8), 3);
  EXPECT_EQ(params.min_new_tokens(), 4);
}

TEST(SamplingFlagsTest, ValuesOutsideTheRangeAreRefusedByName) {
  const struct {
    std::vector<std::string> arguments;
    const char* message;
  } kCases[] = {
      {{"--temperature", "nan"}, "--temperature nan is not from 0 to 2"},
      {{"--temperature", "-0.5"}, "--temperature -0.5 is not from 0 to 2"},
      {{"--temperature", "2.5"}, "--temperature 2.5 is not from 0 to 2"},
      {{"--top-p", "0"}, "--top-p 0 is not above 0"},
      {{"--top-p", "inf"}, "--top-p inf is not from 0 to 1"},
      {{"--min-p", "1.5"}, "--min-p 1.5 is not from 0 to 1"},
      {{"--top-k", "-1"}, "--top-k -1 is negative"},
      {{"--max-new-tokens", "0"}, "--max-new-tokens 0 is not at least 1"},
      {{"--typical-p", "0"}, "--typical-p 0 is not above 0"},
      {{"--typical-p", "nan"}, "--typical-p nan is not from 0 to 1"},
      {{"--repetition-penalty", "0"}, "--repetition-penalty 0 is not from 0.01 to 10"},
      {{"--presence-penalty", "3"}, "--presence-penalty 3 is not from -2 to 2"},
      {{"--frequency-penalty", "nan"}, "--frequency-penalty nan is not from -2 to 2"},
      {{"--logit-bias", "7"}, "--logit-bias 7 is not a token id"},
      {{"--logit-bias", "x=1"}, "--logit-bias x=1 is not a token id"},
      {{"--logit-bias", "7=101"}, "--logit-bias 101 is not from -100 to 100"},
      {{"--min-new-tokens", "3", "--max-new-tokens", "2"}, "--min-new-tokens 3 is more than 2"},
      {{"--stop", "\xff"}, "--stop is not UTF-8"},
  };
  for (const auto& test : kCases) {
    const absl::Status status = Check(test.arguments);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << test.message;
    EXPECT_THAT(std::string(status.message()), HasSubstr(test.message));
  }
}

}  // namespace
}  // namespace essor::cli
