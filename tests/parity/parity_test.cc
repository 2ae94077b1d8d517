// Every family here answers what Hugging Face transformers answers, alone and under every plan.
//
// Tolerance: the mean KL to transformers' fp32 logits may be at most max(3 x b, 1e-4), where b is
// the KL that transformers' own bf16 run has to its fp32 run on the same prompts (stored in the
// golden). A float32 run differs by summation order only; it is held to 1e-6, a hundredth of the
// floor.
#include <algorithm>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/parity/golden.h"
#include "tests/support/local_instance.h"

namespace essor::testing {
namespace {

constexpr double kFloat32Kl = 1e-6;
// A greedy step whose two best logits are closer than this is a numerical tie in bfloat16: 8 bits
// of mantissa on logits of magnitude up to about 8 leave an error of some 2^-5.
constexpr float kTieGap = 0.06f;
// And a step whose indexer's choice was as close to another one as this is a tie too: 8 bits on
// queries and keys move a score by some 2^-7 of its spread, a few times that in a deep layer.
constexpr float kTieIndexGap = 0.02f;

const char* const kCases[] = {
    "llama",
    "llama_tied",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "qwen3_moe_mixed",
    "mixtral",
    "ernie4_5",
    "ernie4_5_moe",
    "glm4_moe",
    "deepseek_v3_dense",
    "moonlight_dense",
    "deepseek_v3",
    "qwen3_moe_fp8",
    "qwen3_moe_fp8_blocks",
    "deepseek_v3_fp8",
    "minimax",
    "minimax_text_01",
    "minimax_m2",
    "minimax_m2_fp8",
    "glm",
    "glm4",
    "llama4",
    "llama4_interleaved",
    "llama4_multimodal",
    "qwen3_next",
    "qwen2_moe",
    "qwen2_moe_mixed",
    "gpt_oss",
    "gpt_oss_mxfp4",
    "kimi_k2_int4",
    "deepseek_v32",
};

// Head sizes, latents, states and blocks of scales as published models have them; the shapes that
// kernels specialise on.
const char* const kKernelTrueCases[] = {"deepseek_v3_true", "minimax_true", "qwen3_next_true"};

// Those of kCases that are also tried under plans with ep.
const char* const kMoeCases[] = {
    "qwen3_moe",
    "qwen3_moe_mixed",
    "mixtral",
    "ernie4_5_moe",
    "glm4_moe",
    "deepseek_v3",
    "qwen3_moe_fp8_blocks",
    "minimax",
    "minimax_text_01",
    "minimax_m2",
    "minimax_m2_fp8",
    "llama4",
    "llama4_interleaved",
    "llama4_multimodal",
    "gpt_oss",
    "gpt_oss_mxfp4",
    "kimi_k2_int4",
    "qwen3_next",
    "qwen2_moe",
    "qwen2_moe_mixed",
    "deepseek_v32",
};

// `path`: of a model, inside tests/data.
std::unique_ptr<LocalInstance> InstanceAt(const std::string& path, const std::string& plan,
                                          worker::Precision precision, bool shared_memory = true) {
  auto instance =
      LocalInstance::Create({.model_path = absl::StrCat(ESSOR_SOURCE_DIR, "/tests/data/", path),
                             .plan = plan,
                             .precision = precision,
                             .limits = {.block_tokens = 8,
                                        .max_step_tokens = 64,
                                        .max_sequences = 4,
                                        .max_context_tokens = 96},
                             .num_blocks = 64,
                             .allow_shared_memory = shared_memory});
  EXPECT_TRUE(instance.ok()) << path << " " << plan << ": " << instance.status();
  return instance.ok() ? *std::move(instance) : nullptr;
}

std::unique_ptr<LocalInstance> Instance(const std::string& name, const std::string& plan,
                                        worker::Precision precision, bool shared_memory = true) {
  return InstanceAt("nano/" + name, plan, precision, shared_memory);
}

double KlToGolden(LocalInstance& instance, const Golden& golden, uint32_t chunk) {
  double worst = 0;
  for (const GoldenPrompt& prompt : golden.prompts) {
    const auto logits = instance.Logits(prompt.ids, chunk);
    EXPECT_TRUE(logits.ok()) << logits.status();
    if (!logits.ok() || logits->size() != prompt.logits.size()) return 1e9;
    worst = std::max(worst, MeanKl(prompt.logits, *logits, instance.spec().vocab_size));
  }
  return worst;
}

// Tokens equal up to the first numerical tie, after which the sequences may part.
void ExpectSameGreedy(const GoldenPrompt& prompt, const std::vector<TokenId>& tokens) {
  for (size_t i = 0; i < prompt.greedy.size(); ++i) {
    if (tokens[i] == prompt.greedy[i]) continue;
    const bool index_tie = !prompt.index_gaps.empty() && prompt.index_gaps[i] < kTieIndexGap;
    EXPECT_TRUE(index_tie || prompt.greedy_gaps[i] < kTieGap)
        << "token " << i << " differs without a tie: gap " << prompt.greedy_gaps[i];
    return;
  }
}

class FamilyParityTest : public ::testing::TestWithParam<const char*> {};

TEST_P(FamilyParityTest, Float32LogitsEqualTransformers) {
  const auto golden = ReadGolden(GetParam());
  ASSERT_TRUE(golden.ok()) << golden.status();
  const auto instance = Instance(GetParam(), "tp=1", worker::Precision::kFloat32);
  ASSERT_NE(instance, nullptr);
  EXPECT_LT(KlToGolden(*instance, *golden, 64), kFloat32Kl);
  EXPECT_LT(KlToGolden(*instance, *golden, 5), kFloat32Kl);  // chunked prefill
  EXPECT_LT(KlToGolden(*instance, *golden, 1), kFloat32Kl);  // one token at a time
}

TEST_P(FamilyParityTest, BFloat16LogitsAreAsCloseAsTransformersOwn) {
  const auto golden = ReadGolden(GetParam());
  ASSERT_TRUE(golden.ok()) << golden.status();
  const auto instance = Instance(GetParam(), "tp=1", worker::Precision::kBFloat16);
  ASSERT_NE(instance, nullptr);
  EXPECT_LT(KlToGolden(*instance, *golden, 64), std::max(3 * golden->bf16_kl, 1e-4));
}

TEST_P(FamilyParityTest, GreedyTokensEqualTransformers) {
  const auto golden = ReadGolden(GetParam());
  ASSERT_TRUE(golden.ok()) << golden.status();
  for (const auto precision : {worker::Precision::kFloat32, worker::Precision::kBFloat16}) {
    const auto instance = Instance(GetParam(), "tp=1", precision);
    ASSERT_NE(instance, nullptr);
    for (const GoldenPrompt& prompt : golden->prompts) {
      const auto tokens = instance->Generate(prompt.ids, 16, {});
      ASSERT_TRUE(tokens.ok()) << tokens.status();
      if (precision == worker::Precision::kFloat32) {
        EXPECT_EQ(*tokens, prompt.greedy);
      } else {
        ExpectSameGreedy(prompt, *tokens);
      }
    }
  }
}

// Prefill, chunked prefill and decode give the same bits, so that chunking never shows.
TEST_P(FamilyParityTest, ChunkingDoesNotChangeABit) {
  const auto golden = ReadGolden(GetParam());
  ASSERT_TRUE(golden.ok()) << golden.status();
  const std::vector<TokenId>& ids = golden->prompts.back().ids;
  for (const auto precision : {worker::Precision::kFloat32, worker::Precision::kBFloat16}) {
    const auto instance = Instance(GetParam(), "tp=1", precision);
    ASSERT_NE(instance, nullptr);
    const auto whole = instance->Logits(ids, 64);
    ASSERT_TRUE(whole.ok()) << whole.status();
    for (const uint32_t chunk : {1u, 3u, 16u}) {
      const auto chunked = instance->Logits(ids, chunk);
      ASSERT_TRUE(chunked.ok()) << chunked.status();
      EXPECT_EQ(*whole, *chunked) << "chunk " << chunk;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, FamilyParityTest, ::testing::ValuesIn(kCases));
INSTANTIATE_TEST_SUITE_P(KernelTrue, FamilyParityTest, ::testing::ValuesIn(kKernelTrueCases));

struct PlanCase {
  const char* family;
  const char* plan;
};

class PlanParityTest : public ::testing::TestWithParam<PlanCase> {};

TEST_P(PlanParityTest, Float32LogitsEqualTransformers) {
  const auto golden = ReadGolden(GetParam().family);
  ASSERT_TRUE(golden.ok()) << golden.status();
  const auto instance = Instance(GetParam().family, GetParam().plan, worker::Precision::kFloat32);
  ASSERT_NE(instance, nullptr);
  EXPECT_LT(KlToGolden(*instance, *golden, 16), kFloat32Kl);
  for (const GoldenPrompt& prompt : golden->prompts) {
    const auto tokens = instance->Generate(prompt.ids, 16, {});
    ASSERT_TRUE(tokens.ok()) << tokens.status();
    EXPECT_EQ(*tokens, prompt.greedy);
  }
}

std::vector<PlanCase> PlanCases() {
  std::vector<PlanCase> cases;
  for (const char* family : kCases) {
    for (const char* plan : {"tp=2", "tp=3", "tp=4", "pp=2", "pp=2,tp=2"}) {
      const bool three_heads =
          family == std::string("qwen2") || family == std::string("moonlight_dense");
      if (!three_heads || plan != std::string("tp=4")) cases.push_back({family, plan});
    }
  }
  for (const char* family : kMoeCases) {
    for (const char* plan : {"ep=2", "ep=3", "tp=2,ep=2", "ep=4,tp=2", "tp=4,ep=2", "pp=2,ep=2"}) {
      cases.push_back({family, plan});
    }
  }
  for (const char* family : kKernelTrueCases) {
    for (const char* plan : {"tp=2", "ep=2", "pp=2"}) cases.push_back({family, plan});
  }
  return cases;
}

std::string PlanName(const ::testing::TestParamInfo<PlanCase>& test) {
  std::string name = absl::StrCat(test.param.family, "_", test.param.plan);
  std::replace_if(
      name.begin(), name.end(), [](char c) { return !isalnum(c); }, '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Plans, PlanParityTest, ::testing::ValuesIn(PlanCases()), PlanName);

// FP8 and 4-bit matrices as the kernels hold them, the former in slices that cut their blocks of
// scales. Activations are rounded as with bfloat16 weights, so the tolerance is that of a bfloat16
// run; scales of the wrong block would move the KL by more than ten times as much (sensitivity_kl
// of the goldens).
class QuantisedPlanTest : public ::testing::TestWithParam<PlanCase> {};

TEST_P(QuantisedPlanTest, LogitsAreAsCloseAsBFloat16) {
  const auto golden = ReadGolden(GetParam().family);
  ASSERT_TRUE(golden.ok()) << golden.status();
  const auto instance = Instance(GetParam().family, GetParam().plan, worker::Precision::kStored);
  ASSERT_NE(instance, nullptr);
  EXPECT_LT(KlToGolden(*instance, *golden, 16), std::max(3 * golden->bf16_kl, 1e-4));
  for (const GoldenPrompt& prompt : golden->prompts) {
    const auto tokens = instance->Generate(prompt.ids, 16, {});
    ASSERT_TRUE(tokens.ok()) << tokens.status();
    ExpectSameGreedy(prompt, *tokens);
  }
}

std::vector<PlanCase> QuantisedPlanCases() {
  std::vector<PlanCase> cases;
  for (const char* family : {"qwen3_moe_fp8", "qwen3_moe_fp8_blocks", "deepseek_v3_fp8",
                             "minimax_m2_fp8", "gpt_oss_mxfp4", "kimi_k2_int4"}) {
    for (const char* plan :
         {"tp=1", "tp=2", "tp=3", "ep=2", "ep=3", "pp=2", "pp=2,tp=2", "tp=2,ep=2", "ep=4,tp=2"}) {
      cases.push_back({family, plan});
    }
  }
  for (const char* plan : {"tp=1", "tp=2", "ep=2", "pp=2"}) {
    cases.push_back({"deepseek_v3_true", plan});
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Plans, QuantisedPlanTest, ::testing::ValuesIn(QuantisedPlanCases()),
                         PlanName);

// The nano checkpoints as llama.cpp's converter writes them (make_gguf_nano.py): the same weights
// under other names and keys give the same logits.
struct GgufCase {
  const char* file;    // tests/data/gguf/nano_<file>.gguf
  const char* golden;  // of the checkpoint that it was made from
  bool experts = true;
};

constexpr GgufCase kGgufCases[] = {
    {"deepseek2", "deepseek_v3"},
    {"deepseek2_unsplit", "deepseek_v3"},
    {"deepseek2_dense", "moonlight_dense", false},
    {"deepseek32", "deepseek_v32"},
    {"ernie4_5", "ernie4_5", false},
    {"ernie4_5-moe", "ernie4_5_moe"},
    {"glm4", "glm4", false},
    {"glm4moe", "glm4_moe"},
    {"llama4", "llama4_published"},
    {"minimax-m2", "minimax_m2"},
};

class GgufParityTest : public ::testing::TestWithParam<GgufCase> {};

TEST_P(GgufParityTest, Float32LogitsEqualTransformers) {
  const auto golden = ReadGolden(GetParam().golden);
  ASSERT_TRUE(golden.ok()) << golden.status();
  std::vector<std::string> plans = {"tp=1", "tp=2", "pp=2"};
  if (GetParam().experts) plans.push_back("ep=2");
  for (const std::string& plan : plans) {
    const auto instance = InstanceAt(absl::StrCat("gguf/nano_", GetParam().file, ".gguf"), plan,
                                     worker::Precision::kFloat32);
    ASSERT_NE(instance, nullptr);
    EXPECT_LT(KlToGolden(*instance, *golden, 16), kFloat32Kl) << plan;
  }
}

std::string GgufName(const ::testing::TestParamInfo<GgufCase>& test) {
  std::string name = test.param.file;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Architectures, GgufParityTest, ::testing::ValuesIn(kGgufCases), GgufName);

// A step of Q8_0 is 1/127 of its block's largest value, some 1/50 of a typical one, where
// bfloat16's is 1/256: an error at most five times bfloat16's, whose square the KL follows. Half of
// that is granted; a matrix in the wrong place moves the KL by far more (sensitivity_kl of the
// golden).
TEST(GgufQuantisedParityTest, LogitsAreAsCloseAsTheirTypeAllows) {
  const auto golden = ReadGolden("deepseek_v3");
  ASSERT_TRUE(golden.ok()) << golden.status();
  for (const std::string plan : {"tp=1", "tp=2", "ep=2"}) {
    for (const auto precision : {worker::Precision::kFloat32, worker::Precision::kStored}) {
      const auto instance = InstanceAt("gguf/nano_deepseek2_q8_0.gguf", plan, precision);
      ASSERT_NE(instance, nullptr);
      EXPECT_LT(KlToGolden(*instance, *golden, 16), 12.5 * golden->bf16_kl) << plan;
    }
  }
}

// The exchange over TCP gives the same bits as over shared memory.
TEST(TransportParityTest, TcpEqualsSharedMemory) {
  const auto golden = ReadGolden("mixtral");
  ASSERT_TRUE(golden.ok()) << golden.status();
  const std::vector<TokenId>& ids = golden->prompts.back().ids;
  std::vector<std::vector<float>> logits;
  for (const bool shared_memory : {true, false}) {
    const auto instance =
        Instance("mixtral", "pp=2,tp=2", worker::Precision::kBFloat16, shared_memory);
    ASSERT_NE(instance, nullptr);
    auto result = instance->Logits(ids, 16);
    ASSERT_TRUE(result.ok()) << result.status();
    logits.push_back(*std::move(result));
  }
  EXPECT_EQ(logits[0], logits[1]);
}

// A sequence's tokens do not depend on what else is in the batch, greedy or sampled.
class BatchParityTest : public ::testing::TestWithParam<PlanCase> {};

TEST_P(BatchParityTest, TokensDoNotDependOnTheBatch) {
  const auto golden = ReadGolden(GetParam().family);
  ASSERT_TRUE(golden.ok()) << golden.status();
  const worker::SequenceSampling kSampling[] = {
      {},
      {.temperature = 0.8f, .seed = 7},
      {.temperature = 1.0f, .top_p = 0.9f, .top_k = 40, .seed = 9}};
  const auto instance = Instance(GetParam().family, GetParam().plan, worker::Precision::kBFloat16);
  ASSERT_NE(instance, nullptr);
  std::vector<std::vector<TokenId>> alone;
  for (size_t i = 0; i < 3; ++i) {
    auto tokens = instance->Generate(golden->prompts[i].ids, 12, kSampling[i]);
    ASSERT_TRUE(tokens.ok()) << tokens.status();
    alone.push_back(*std::move(tokens));
  }
  std::vector<std::vector<TokenId>> together(3);
  for (uint32_t round = 0; round < 12; ++round) {
    worker::StepInput step;
    for (uint32_t i = 0; i < 3; ++i) {
      worker::StepInput::Sequence sequence{.slot = i};
      if (round == 0) {
        step.starts.push_back({.slot = i, .sampling = kSampling[i]});
        sequence.tokens = golden->prompts[i].ids;
        std::vector<uint32_t> blocks(8);
        std::iota(blocks.begin(), blocks.end(), 8 * i);
        instance->AddBlocks(blocks, &sequence);
      }
      step.sequences.push_back(std::move(sequence));
    }
    const auto output = instance->Run(step);
    ASSERT_TRUE(output.ok()) << output.status();
    for (const auto& sampled : output->sampled) together[sampled.slot].push_back(sampled.token);
  }
  EXPECT_EQ(together, alone);
}

INSTANTIATE_TEST_SUITE_P(
    Batches, BatchParityTest,
    ::testing::Values(PlanCase{"qwen3_moe", "tp=2,ep=2"}, PlanCase{"minimax_text_01", "tp=2"},
                      PlanCase{"minimax_text_01", "pp=2,ep=2"}, PlanCase{"qwen3_next", "tp=3"},
                      PlanCase{"deepseek_v32", "tp=2,ep=2"}, PlanCase{"llama4", "tp=2"},
                      PlanCase{"gpt_oss_mxfp4", "ep=2"}, PlanCase{"kimi_k2_int4", "pp=2"}),
    PlanName);

}  // namespace
}  // namespace essor::testing
