// The expected numbers were computed by transformers 5.23 (modeling_rope_utils.ROPE_INIT_FUNCTIONS,
// and for "default" the formula 1 / theta^(2i/d)), head_dim 16.
#include "model/spec/rope_frequencies.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/spec/rope_config.h"

namespace essor::model {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<RopeSpec> Read(const std::string& json, uint32_t max_position = 131072) {
  const auto config = ConfigView::Parse(json, "config.json");
  EXPECT_TRUE(config.ok()) << config.status();
  return ReadRope(*config, {.head_dim = 16, .max_position_embeddings = max_position});
}

void ExpectFrequencies(const absl::StatusOr<RopeSpec>& rope, const std::vector<float>& expected,
                       float attention_factor) {
  ASSERT_TRUE(rope.ok()) << rope.status();
  const RopeFrequencies actual = FrequenciesOf(*rope);
  ASSERT_EQ(actual.inverse_frequencies.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    // transformers computes in float32: a handful of roundings of 6e-8 each, the worst of them
    // amplified by the subtraction of the smooth factor's bounds.
    EXPECT_NEAR(actual.inverse_frequencies[i] / expected[i], 1.0, 2e-6) << "pair " << i;
  }
  EXPECT_NEAR(actual.attention_factor, attention_factor, 1e-6);
}

TEST(RopeFrequenciesTest, Default) {
  ExpectFrequencies(Read(R"({"rope_theta": 10000.0})"),
                    {1.f, 0.316227764f, 0.100000001f, 0.0316227786f, 0.00999999978f, 0.00316227786f,
                     0.00100000005f, 0.000316227786f},
                    1);
}

TEST(RopeFrequenciesTest, Linear) {
  ExpectFrequencies(
      Read(R"({"rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 4.0}})"),
      {0.25f, 0.079056941f, 0.0250000004f, 0.00790569466f, 0.00249999994f, 0.000790569466f,
       0.000250000012f, 7.90569466e-05f},
      1);
}

const char kLlama3[] = R"("factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                          "original_max_position_embeddings": 8192, "rope_type": "llama3")";
const std::vector<float> kLlama3Expected = {1.f,
                                            0.193922758f,
                                            0.0376060307f,
                                            0.00729266508f,
                                            0.000524846022f,
                                            3.42810235e-05f,
                                            6.64786967e-06f,
                                            1.28917316e-06f};

// Both ways of writing it.
TEST(RopeFrequenciesTest, Llama3) {
  ExpectFrequencies(
      Read(absl::StrCat(R"({"rope_theta": 500000.0, "rope_scaling": {)", kLlama3, "}}")),
      kLlama3Expected, 1);
  ExpectFrequencies(
      Read(absl::StrCat(R"({"rope_parameters": {"rope_theta": 500000.0, )", kLlama3, "}}")),
      kLlama3Expected, 1);
}

TEST(RopeFrequenciesTest, YarnWithDefaults) {
  ExpectFrequencies(Read(R"({"rope_theta": 1000000.0, "rope_scaling": {"rope_type": "yarn",
                             "factor": 4.0, "original_max_position_embeddings": 32768}})"),
                    {1.f, 0.177827939f, 0.0316227786f, 0.00421755994f, 0.000500000024f,
                     4.44569851e-05f, 7.90569356e-06f, 1.40585337e-06f},
                    1.13862944f);
}

TEST(RopeFrequenciesTest, YarnWithoutTruncation) {
  ExpectFrequencies(Read(R"({"rope_theta": 150000.0, "rope_scaling": {"rope_type": "yarn",
                             "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0,
                             "truncate": false, "original_max_position_embeddings": 4096}})"),
                    {1.f, 0.225418001f, 0.0508132726f, 0.00679495931f, 0.000456483918f,
                     1.8188337e-05f, 4.09997847e-06f, 9.24208962e-07f},
                    1.34657359f);
}

// The key of the config itself wins, as in transformers.
TEST(RopeFrequenciesTest, YarnWithMscaleAndOuterOriginalLength) {
  ExpectFrequencies(Read(R"({"rope_theta": 10000.0, "original_max_position_embeddings": 4096,
               "rope_scaling": {"rope_type": "yarn", "factor": 40.0, "mscale": 1.0,
                                "mscale_all_dim": 0.8, "original_max_position_embeddings": 7}})"),
                    {1.f, 0.316227764f, 0.100000001f, 0.0239147246f, 0.00512499968f,
                     0.000849862176f, 2.49999994e-05f, 7.90569447e-06f},
                    1.05696626f);
}

TEST(RopeFrequenciesTest, AttentionFactorOfTheConfigWins) {
  const auto rope = Read(R"({"rope_scaling": {"rope_type": "yarn", "factor": 4.0,
                             "attention_factor": 0.75}})");
  ASSERT_TRUE(rope.ok());
  EXPECT_EQ(FrequenciesOf(*rope).attention_factor, 0.75f);
}

TEST(RopeFrequenciesTest, PartialRotation) {
  const auto rope = Read(R"({"partial_rotary_factor": 0.5})");
  ASSERT_TRUE(rope.ok());
  EXPECT_EQ(rope->rotary_dim, 8u);
  EXPECT_EQ(FrequenciesOf(*rope).inverse_frequencies.size(), 4u);
}

TEST(RopeFrequenciesTest, NoRotation) {
  EXPECT_TRUE(FrequenciesOf(RopeSpec{}).inverse_frequencies.empty());
}

TEST(RopeConfigTest, SameParametersForAllLayersMayBeNested) {
  const auto rope = Read(R"({"rope_parameters": {"full_attention": {"rope_theta": 77.0}}})");
  ASSERT_TRUE(rope.ok());
  EXPECT_EQ(rope->theta, 77.0);
}

TEST(RopeConfigTest, RefusesWithTheKeysName) {
  const struct {
    const char* json;
    const char* message;
  } kCases[] = {
      {R"({"rope_scaling": {"rope_type": "dynamic", "factor": 2}})",
       "config.json: rope_scaling.rope_type: RoPE type \"dynamic\" is not one of default, linear, "
       "llama3, yarn"},
      {R"({"rope_scaling": {"type": "su"}})", "rope_scaling.type: RoPE type \"su\" is not one of"},
      {R"({"rope_scaling": {"type": "linear"}})", "rope_scaling.factor: missing"},
      {R"({"rope_scaling": {"type": "linear", "factor": -2}})",
       "rope_scaling.factor: -2 is below 1"},
      {R"({"rope_theta": -1})", "rope_theta: -1 is not above 0"},
      {R"({"rope_theta": 1})", "rope_theta: 1 is not above 1"},
      {R"({"rope_parameters": {"rope_type": "llama3", "factor": 8}})",
       "rope_parameters.low_freq_factor: missing"},
      {R"({"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4,
           "high_freq_factor": 1}})",
       "rope_scaling.high_freq_factor: below low_freq_factor"},
      {R"({"rope_scaling": {"rope_type": "yarn", "factor": 8, "beta_fast": 1, "beta_slow": 2}})",
       "rope_scaling.beta_fast: below beta_slow"},
      {R"({"rope_scaling": {"rope_type": "yarn", "factor": 8,
           "original_max_position_embeddings": 0}})",
       "rope_scaling.original_max_position_embeddings: 0 is below 1"},
      {R"({"partial_rotary_factor": 0.2})", "head_dim: 3 rotated dimensions of 16"},
      {R"({"partial_rotary_factor": 1.5})", "partial_rotary_factor: 1.5 is above 1"},
      {R"({"rope_scaling": "yarn"})", "rope_scaling: expected an object"},
      {R"({"rope_parameters": {"full_attention": {}, "sliding_attention": {}}})",
       "rope_parameters.sliding_attention: RoPE that differs by layer is not supported"},
      {R"({"rope_parameters": {"full_attention": {}, "chunked_attention": {"rope_theta": 7.0}}})",
       "rope_parameters.chunked_attention: RoPE that differs by layer is not supported"},
      {R"({"rope_parameters": {"rope_theta": 7.0, "linear_attention": {}}})",
       "rope_parameters.linear_attention: RoPE that differs by layer is not supported"},
  };
  for (const auto& test : kCases) {
    const auto rope = Read(test.json);
    EXPECT_EQ(rope.status().code(), absl::StatusCode::kInvalidArgument) << test.json;
    EXPECT_THAT(std::string(rope.status().message()), HasSubstr(test.message));
  }
}

}  // namespace
}  // namespace essor::model
