#include "client/plan/plan_command.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace essor::client {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string ConfigPath(const std::string& name) {
  return std::string(ESSOR_SOURCE_DIR) + "/tests/data/" + name;
}

PlanCommand EightDevices(const std::string& model) {
  return {.model = ConfigPath("configs/" + model), .nodes = 1, .devices = 8};
}

TEST(PlanCommandTest, PublishedShapesFitEightDevices) {
  for (const char* model : {"qwen3-235b-a22b", "mixtral-8x22b"}) {
    const auto text = RenderPlan(EightDevices(model));
    ASSERT_TRUE(text.ok()) << text.status();
    EXPECT_THAT(*text, HasSubstr("cluster   1 node x 8 devices of 80.0 GB\n"));
    EXPECT_THAT(*text, HasSubstr("(8 ranks)"));
    EXPECT_THAT(*text, HasSubstr("is predicted to be fastest of the"));
    EXPECT_THAT(*text, HasSubstr("batch 16, context 4096: "));
    EXPECT_THAT(*text, HasSubstr("batch 1, context 4096: "));
  }
}

TEST(PlanCommandTest, TextSaysWhatTheModelIs) {
  const auto text = RenderPlan(EightDevices("qwen3-235b-a22b"));
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_THAT(*text, HasSubstr("(qwen3_moe): 235.1 B parameters, 21.6 B of them per token, 94 "
                               "layers, weights in bf16\n"));
}

TEST(PlanCommandTest, JsonAddsUp) {
  PlanCommand command = EightDevices("mixtral-8x22b");
  command.plan = "tp=4,ep=8";
  command.json = true;
  const auto text = RenderPlan(command);
  ASSERT_TRUE(text.ok()) << text.status();
  const auto json = nlohmann::json::parse(*text);
  EXPECT_EQ(json["plan"], "pp=1,dp=1,tp=4,ep=8");
  EXPECT_EQ(json["factors"]["ep"], 8);
  EXPECT_EQ(json["reason"], "as asked for; it uses 8 of 8 devices and fits");
  EXPECT_EQ(json["model"]["family"], "mixtral");
  EXPECT_EQ(json["cluster"]["device_memory_bytes"], 80'000'000'000u);
  ASSERT_EQ(json["ranks"].size(), 8u);
  uint64_t next_expert = 0;
  for (const auto& rank : json["ranks"]) {
    ASSERT_EQ(rank["shares"].size(), 1u);
    EXPECT_EQ(rank["shares"][0]["experts"][0], next_expert);
    next_expert = rank["shares"][0]["experts"][1];
    EXPECT_EQ(rank["total_bytes"].get<uint64_t>(),
              rank["weight_bytes"].get<uint64_t>() + rank["state_bytes"].get<uint64_t>() +
                  rank["snapshot_bytes"].get<uint64_t>() + rank["kv_bytes"].get<uint64_t>() +
                  rank["activation_bytes"].get<uint64_t>() +
                  rank["exchange_bytes"].get<uint64_t>());
    EXPECT_EQ(rank["total_bytes"].get<uint64_t>() + rank["free_bytes"].get<uint64_t>(),
              80'000'000'000u);
  }
  EXPECT_EQ(next_expert, 8u);
  EXPECT_EQ(json["decode"][0]["batch"], 16);
  EXPECT_EQ(json["decode"][1]["batch"], 1);
  EXPECT_GT(json["traffic_bytes_per_token"]["total"], 0);
}

TEST(PlanCommandTest, LatentAttentionHasOneCachedVectorForAllHeads) {
  PlanCommand command{.model = ConfigPath("nano/moonlight_dense"), .nodes = 1, .devices = 2};
  command.plan = "tp=2";
  command.json = true;
  const auto text = RenderPlan(command);
  ASSERT_TRUE(text.ok()) << text.status();
  const auto json = nlohmann::json::parse(*text);
  EXPECT_EQ(json["ranks"][0]["shares"][0]["heads"], nlohmann::json({0, 2}));
  EXPECT_EQ(json["ranks"][1]["shares"][0]["heads"], nlohmann::json({2, 3}));
  for (const auto& rank : json["ranks"]) {
    EXPECT_EQ(rank["shares"][0]["kv_heads"], nlohmann::json({0, 1}));
    // Three layers of 16 + 8 values in bf16.
    EXPECT_EQ(rank["kv_bytes"].get<uint64_t>(),
              json["kv_cache"]["tokens"].get<uint64_t>() * 3 * 24 * 2);
  }
}

// Of gpt-oss's layers every second one reads 8 tokens, of Qwen3-Next's keeps a state.
TEST(PlanCommandTest, SaysWhatOtherKindsOfLayersHave) {
  PlanCommand command{.model = ConfigPath("nano/gpt_oss"), .nodes = 1, .devices = 1};
  const std::string windowed = RenderPlan(command).value();
  EXPECT_THAT(windowed, HasSubstr(" blocks for layers that read 8 tokens: "));
  EXPECT_THAT(windowed, ::testing::Not(HasSubstr("snapshots")));
  command.json = true;
  auto kv = nlohmann::json::parse(RenderPlan(command).value())["kv_cache"];
  EXPECT_GT(kv["num_window_blocks"], 0);
  EXPECT_EQ(kv["num_snapshots"], 0);

  command.model = ConfigPath("nano/qwen3_next");
  kv = nlohmann::json::parse(RenderPlan(command).value())["kv_cache"];
  EXPECT_EQ(kv["num_window_blocks"], 0);
  EXPECT_GT(kv["num_snapshots"], 0);
  command.json = false;
  EXPECT_THAT(RenderPlan(command).value(),
              HasSubstr(kv["num_snapshots"].dump() + " snapshots of a sequence's states\n"));
}

// 94 layers, 4 KV heads of 128: a KV head for each of four ranks.
TEST(PlanCommandTest, BytesForKeysAndValuesHoldTwiceTheTokens) {
  std::vector<uint64_t> tokens;
  for (const char* type : {"float32", "bfloat16", "fp8", "int8"}) {
    PlanCommand command = EightDevices("qwen3-235b-a22b");
    command.plan = "tp=4,ep=8,pp=2";
    command.nodes = 2;
    command.kv_dtype = type;
    command.max_sequences = 1024;
    EXPECT_THAT(RenderPlan(command).value(), HasSubstr(absl::StrCat(" tokens in ", type, ": ")));
    command.json = true;
    const auto json = nlohmann::json::parse(RenderPlan(command).value());
    EXPECT_EQ(json["kv_cache"]["dtype"], type);
    tokens.push_back(json["kv_cache"]["tokens"]);
  }
  const auto ratio = [&](size_t i) { return static_cast<double>(tokens[i]) / tokens[1]; };
  EXPECT_NEAR(ratio(0), 0.5, 0.001);
  EXPECT_NEAR(ratio(2), 2, 0.001);
  EXPECT_NEAR(ratio(3), 2 * 128.0 / 132, 0.001);
}

// DeepSeek V3 keeps 61 x 576 values in bf16 of every token, on each of the eight ranks.
TEST(PlanCommandTest, SaysWhatUndividedLatentsCost) {
  PlanCommand command = EightDevices("deepseek-v3");
  command.device_memory = "141GB";
  command.plan = "tp=8";
  EXPECT_THAT(
      RenderPlan(command).value(),
      HasSubstr("every rank of tp=8 holds the latents of all tokens: 70.3 kB a token, where "
                "a divided cache would take 8.8 kB\n"));
  command.json = true;
  EXPECT_EQ(nlohmann::json::parse(RenderPlan(command).value())["kv_cache"]["latent_copies"], 8);
  command.plan = "pp=8";
  command.json = false;
  EXPECT_THAT(RenderPlan(command).value(), ::testing::Not(HasSubstr("latents of all tokens")));
  EXPECT_THAT(RenderPlan(EightDevices("qwen3-235b-a22b")).value(),
              ::testing::Not(HasSubstr("latents of all tokens")));
}

TEST(PlanCommandTest, SaysWhyItDoesNotFit) {
  PlanCommand command = EightDevices("qwen3-235b-a22b");
  command.devices = 4;
  auto text = RenderPlan(command);
  EXPECT_EQ(text.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(text.status().message()),
              StartsWith("no plan over 4 ranks of 80.0 GB holds this model; the leanest, "));
  // In 4 bits it does.
  command.weights = "q4_1";
  EXPECT_TRUE(RenderPlan(command).ok());

  command = EightDevices("qwen3-235b-a22b");
  command.plan = "tp=2";
  text = RenderPlan(command);
  EXPECT_EQ(text.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(text.status().message()),
              StartsWith("pp=1,dp=1,tp=2,ep=1 does not fit: rank 0 needs "));
}

TEST(PlanCommandTest, DataParallelGroupsHaveACacheEach) {
  PlanCommand command = EightDevices("mixtral-8x22b");
  command.plan = "dp=4,tp=2,ep=8";
  const auto text = RenderPlan(command);
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_THAT(*text, HasSubstr("plan      pp=1,dp=4,tp=2,ep=8 (8 ranks)\n"));
  EXPECT_THAT(*text, HasSubstr(" tokens in bfloat16 in each of 4 groups: "));
  command.json = true;
  const auto json = nlohmann::json::parse(RenderPlan(command).value());
  const auto& cache = json["kv_cache"];
  EXPECT_EQ(cache["groups"], 4);
  EXPECT_EQ(cache["tokens"].get<uint64_t>(),
            4 * cache["num_blocks"].get<uint64_t>() * cache["block_tokens"].get<uint64_t>());
  for (uint32_t rank = 0; rank < 8; ++rank) {
    EXPECT_EQ(json["ranks"][rank]["group"], rank / 2);
    EXPECT_EQ(json["ranks"][rank]["vocabulary"], json["ranks"][rank % 2]["vocabulary"]);
  }
}

TEST(PlanCommandTest, RefusesImpossiblePlans) {
  PlanCommand command = EightDevices("mixtral-8x22b");
  const struct {
    const char* plan;
    const char* message;
  } kCases[] = {
      {"tp=16", "plan pp=1,dp=1,tp=16,ep=1 needs 16 devices, and there are 8"},
      {"dp=4,ep=16", "plan pp=1,dp=4,tp=1,ep=16 needs 16 devices, and there are 8"},
      {"tp=3,ep=2",
       "plan \"tp=3,ep=2\": of dp x tp = 3 and ep=2 the larger must be a multiple of "
       "the smaller"},
      {"xp=1",
       "plan \"xp=1\": \"xp=1\" is not one of pp=N, dp=N, tp=N, ep=N (separated by commas)"},
  };
  for (const auto& test : kCases) {
    command.plan = test.plan;
    const auto text = RenderPlan(command);
    EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument) << test.plan;
    EXPECT_EQ(std::string(text.status().message()), test.message);
  }
}

TEST(PlanCommandTest, RefusesBadFlags) {
  const PlanCommand good = EightDevices("mixtral-8x22b");
  const auto message = [](PlanCommand command) {
    const auto text = RenderPlan(command);
    EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(text.status().message());
  };
  PlanCommand bad = good;
  bad.device_memory = "80 apples";
  EXPECT_EQ(message(bad),
            "--device-memory: \"80 apples\" is not a size such as 80GB, 80GiB or 512MB");
  bad = good;
  bad.nodes = 0;
  EXPECT_EQ(message(bad), "--nodes: 0 is outside 1 to 4096");
  bad = good;
  bad.devices = 100000;
  EXPECT_EQ(message(bad), "--devices: 100000 is outside 1 to 4096");
  bad = good;
  bad.nodes = 1000;
  EXPECT_EQ(message(bad), "--nodes: 1000 x 8 devices are more than 4096");
  bad = good;
  bad.weights = "int3";
  EXPECT_EQ(message(bad),
            "--weights: \"int3\" is not one of auto, f32, bf16, f8_e4m3, q8_0, q4_1, f4_e2m1, i4");
  bad = good;
  bad.max_context_tokens = 70000;
  EXPECT_EQ(message(bad), "--max-context: 70000 is outside 1 to 65536");
  bad = good;
  bad.batch = 0;
  EXPECT_EQ(message(bad), "--batch: 0 is outside 1 to 1048576");
  bad = good;
  bad.model = "";
  EXPECT_EQ(message(bad), "--model: missing");
}

// Usage is checked without reading the model.
TEST(PlanCommandTest, FlagsAreCheckedOnTheirOwn) {
  PlanCommand command{.model = "/nonexistent/model"};
  EXPECT_EQ(CheckPlanCommand(command), absl::OkStatus());
  command.plan = "tp=0";
  EXPECT_EQ(CheckPlanCommand(command).code(), absl::StatusCode::kInvalidArgument);
}

TEST(PlanCommandTest, MissingModel) {
  const auto text = RenderPlan({.model = "/nonexistent/model"});
  EXPECT_EQ(text.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(std::string(text.status().message()), "/nonexistent/model: no such file or directory");
}

// A bare config.json is enough, whatever it is called; dtype in its newer spelling.
TEST(PlanCommandTest, TakesTheConfigItself) {
  const auto report = MakePlanReport(
      {.model = ConfigPath("nano/llama_tied/config.json"), .devices = 1, .device_memory = "1GiB"});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->weights, DType::kF32);
  EXPECT_EQ(report->device_memory_bytes, uint64_t{1} << 30);
}

}  // namespace
}  // namespace essor::client
