// Every plan of up to four ranks, over models of every kind of layer: the answers of Hugging Face
// transformers, whichever data-parallel group a sequence is in; and with experts whole on their
// ranks the very bits of one rank. See parity_test.cc for the tolerances.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "model/source/model_source.h"
#include "tests/parity/golden.h"
#include "tests/support/local_instance.h"

namespace essor::testing {
namespace {

constexpr double kFloat32Kl = 1e-6;
constexpr uint32_t kRanksMax = 4;
constexpr uint32_t kSlots = 4;  // of one group
constexpr uint32_t kBlockTokens = 8;
constexpr uint32_t kBlocksPerSequence = 12;
constexpr uint32_t kNewTokens = 16;

// Grouped-query, latent and linear attention, windows, chunks and an indexer; shared experts with
// and without gates, biases, experts that weigh their input; and no experts at all.
const char* const kFamilies[] = {
    "llama",     "qwen3_moe", "deepseek_v3", "deepseek_v32",    "qwen3_next",
    "qwen2_moe", "gpt_oss",   "llama4",      "minimax_text_01",
};

std::string PathOf(const std::string& family) {
  return absl::StrCat(ESSOR_SOURCE_DIR, "/tests/data/nano/", family);
}

struct Options {
  worker::Precision precision = worker::Precision::kFloat32;
  bool shared_memory = true;
  uint32_t ranks_per_worker = 1;
};

std::unique_ptr<LocalInstance> Instance(const std::string& family, const std::string& plan,
                                        const Options& options = {}) {
  auto instance = LocalInstance::Create({.model_path = PathOf(family),
                                         .plan = plan,
                                         .precision = options.precision,
                                         .limits = {.block_tokens = kBlockTokens,
                                                    .max_step_tokens = 64,
                                                    .max_sequences = kSlots,
                                                    .max_context_tokens = 96},
                                         .num_blocks = kSlots * kBlocksPerSequence,
                                         .ranks_per_worker = options.ranks_per_worker,
                                         .allow_shared_memory = options.shared_memory});
  EXPECT_TRUE(instance.ok()) << family << " " << plan << ": " << instance.status();
  return instance.ok() ? *std::move(instance) : nullptr;
}

// Where the i-th of several sequences goes: the groups take turns.
uint32_t SlotOf(uint32_t i, uint32_t dp) { return i % dp * kSlots + i / dp; }

// Adds a sequence with all the blocks that it may need.
void AddPrompt(const LocalInstance& instance, uint32_t slot, const std::vector<TokenId>& prompt,
               const worker::SequenceSampling& sampling, worker::StepInput* step) {
  step->starts.push_back({.slot = slot, .sampling = sampling});
  worker::StepInput::Sequence sequence{.slot = slot, .tokens = prompt};
  std::vector<uint32_t> blocks;
  for (uint32_t i = 0; i < kBlocksPerSequence; ++i) {
    blocks.push_back(slot % kSlots * kBlocksPerSequence + i);
  }
  instance.AddBlocks(blocks, &sequence);
  step->sequences.push_back(std::move(sequence));
}

// Tokens after each of `prompts`, all running at once; sequence i begins with step i, so that
// prompts meet sequences that decode, and groups without any sequence stand by. By prompt.
absl::StatusOr<std::vector<std::vector<TokenId>>> GenerateTogether(
    LocalInstance& instance, uint32_t dp, const std::vector<std::vector<TokenId>>& prompts,
    const worker::SequenceSampling& sampling) {
  std::vector<std::vector<TokenId>> tokens(prompts.size());
  const auto num_prompts = static_cast<uint32_t>(prompts.size());
  for (uint32_t round = 0; round < kNewTokens + num_prompts - 1; ++round) {
    worker::StepInput step;
    std::vector<uint32_t> expected;
    for (uint32_t i = 0; i < num_prompts; ++i) {
      if (round < i || tokens[i].size() == kNewTokens) continue;
      const uint32_t slot = SlotOf(i, dp);
      expected.push_back(slot);
      if (round == i) {
        AddPrompt(instance, slot, prompts[i], sampling, &step);
      } else {
        step.sequences.push_back({.slot = slot});
      }
    }
    const auto output = instance.Run(step);
    if (!output.ok()) return output.status();
    if (output->sampled.size() != expected.size()) return absl::InternalError("tokens are missing");
    for (size_t i = 0; i < expected.size(); ++i) {
      if (output->sampled[i].slot != expected[i]) return absl::InternalError("not in order");
      for (uint32_t p = 0; p < num_prompts; ++p) {
        if (SlotOf(p, dp) == expected[i]) tokens[p].push_back(output->sampled[i].token);
      }
    }
  }
  worker::StepInput release;
  for (uint32_t i = 0; i < num_prompts; ++i) release.release_slots.push_back(SlotOf(i, dp));
  const auto released = instance.Run(release);
  if (!released.ok()) return released.status();
  return tokens;
}

struct PlanCase {
  std::string family;
  model::ParallelPlan plan;
};

std::vector<PlanCase> EveryPlan() {
  std::vector<PlanCase> cases;
  for (const std::string family : kFamilies) {
    const auto source = model::ModelSource::Open(PathOf(family));
    for (uint32_t pp = 1; pp <= kRanksMax; ++pp) {
      for (uint32_t dp = 1; dp <= kRanksMax; ++dp) {
        for (uint32_t tp = 1; tp <= kRanksMax; ++tp) {
          for (uint32_t ep = 1; ep <= kRanksMax; ++ep) {
            const model::ParallelPlan plan{.pp = pp, .dp = dp, .tp = tp, .ep = ep};
            if (plan.NumRanks() > kRanksMax) continue;
            // A model that cannot be opened fails the tests, not their list.
            if (source.ok() && !model::ValidatePlan(plan, (*source)->spec).ok()) continue;
            cases.push_back({family, plan});
          }
        }
      }
    }
  }
  return cases;
}

std::string PlanName(const ::testing::TestParamInfo<PlanCase>& test) {
  const model::ParallelPlan& plan = test.param.plan;
  return absl::StrCat(test.param.family, "_pp", plan.pp, "_dp", plan.dp, "_tp", plan.tp, "_ep",
                      plan.ep);
}

class EveryPlanTest : public ::testing::TestWithParam<PlanCase> {};

// One sequence in each group by itself, the other groups idle; then all of them at once.
TEST_P(EveryPlanTest, Float32AnswersEqualTransformers) {
  const uint32_t dp = GetParam().plan.dp;
  const auto golden = ReadGolden(GetParam().family);
  ASSERT_TRUE(golden.ok()) << golden.status();
  const auto instance = Instance(GetParam().family, GetParam().plan.ToString());
  ASSERT_NE(instance, nullptr);
  std::vector<std::vector<TokenId>> prompts;
  for (uint32_t i = 0; i < kSlots; ++i) {
    const GoldenPrompt& prompt = golden->prompts[i % golden->prompts.size()];
    const auto logits = instance->Logits(prompt.ids, 16, SlotOf(i, dp));
    ASSERT_TRUE(logits.ok()) << logits.status();
    ASSERT_EQ(logits->size(), prompt.logits.size());
    EXPECT_LT(MeanKl(prompt.logits, *logits, instance->spec().vocab_size), kFloat32Kl);
    prompts.push_back(prompt.ids);
  }
  const auto tokens = GenerateTogether(*instance, dp, prompts, {});
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  for (uint32_t i = 0; i < kSlots; ++i) {
    EXPECT_EQ((*tokens)[i], golden->prompts[i % golden->prompts.size()].greedy) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Plans, EveryPlanTest, ::testing::ValuesIn(EveryPlan()), PlanName);

struct BitsCase {
  const char* family;
  const char* plan;
  worker::Precision precision;
  bool shared_memory = true;
  uint32_t ranks_per_worker = 1;
};

// Where attention is not cut and experts are whole, spreading the experts changes no bit of what
// one rank computes: logits of prompts, and tokens drawn while groups run different sequences.
class DataParallelBitsTest : public ::testing::TestWithParam<BitsCase> {};

TEST_P(DataParallelBitsTest, EqualsOneRank) {
  const BitsCase& test = GetParam();
  const auto golden = ReadGolden(test.family);
  ASSERT_TRUE(golden.ok()) << golden.status();
  const uint32_t dp = model::ParallelPlan::Parse(test.plan)->dp;
  const auto one = Instance(test.family, "tp=1", {.precision = test.precision});
  const auto many = Instance(test.family, test.plan,
                             {.precision = test.precision,
                              .shared_memory = test.shared_memory,
                              .ranks_per_worker = test.ranks_per_worker});
  ASSERT_NE(one, nullptr);
  ASSERT_NE(many, nullptr);
  std::vector<std::vector<TokenId>> prompts;
  for (uint32_t i = 0; i < 3; ++i) prompts.push_back(golden->prompts[i].ids);
  for (uint32_t i = 0; i < 2 * dp; ++i) {
    const std::vector<TokenId>& ids = prompts[i % prompts.size()];
    const auto expected = one->Logits(ids, 64);
    const auto logits = many->Logits(ids, i % 2 == 0 ? 64 : 5, SlotOf(i, dp));
    ASSERT_TRUE(expected.ok()) << expected.status();
    ASSERT_TRUE(logits.ok()) << logits.status();
    EXPECT_EQ(*logits, *expected) << i;
  }
  const worker::SequenceSampling sampling{.temperature = 0.9f, .top_p = 0.95f, .seed = 11};
  const auto expected = GenerateTogether(*one, 1, prompts, sampling);
  const auto tokens = GenerateTogether(*many, dp, prompts, sampling);
  ASSERT_TRUE(expected.ok()) << expected.status();
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(*tokens, *expected);
}

std::string BitsName(const ::testing::TestParamInfo<BitsCase>& test) {
  std::string name =
      absl::StrCat(test.param.family, "_", test.param.plan, "_",
                   static_cast<int>(test.param.precision), test.param.shared_memory ? "" : "_tcp",
                   test.param.ranks_per_worker == 1 ? "" : "_one_worker");
  std::replace_if(
      name.begin(), name.end(), [](char c) { return !isalnum(c); }, '_');
  return name;
}

std::vector<BitsCase> BitsCases() {
  std::vector<BitsCase> cases;
  for (const auto precision : {worker::Precision::kFloat32, worker::Precision::kBFloat16}) {
    for (const char* family : {"qwen3_moe", "deepseek_v3", "qwen3_next", "gpt_oss", "llama4"}) {
      for (const char* plan : {"dp=2,ep=2", "pp=2,dp=2,ep=2", "dp=4,ep=4"}) {
        cases.push_back({family, plan, precision});
      }
    }
    // Two ranks in each group divide its tokens.
    cases.push_back({"qwen3_moe", "dp=2,ep=4", precision});
    cases.push_back({"gpt_oss", "dp=2,ep=4", precision});
    cases.push_back({"llama", "dp=3", precision});
  }
  for (const char* family :
       {"qwen3_moe_fp8", "gpt_oss_mxfp4", "kimi_k2_int4", "minimax_m2_fp8", "qwen3_moe_mixed"}) {
    cases.push_back({family, "dp=2,ep=2", worker::Precision::kStored});
  }
  cases.push_back({"mixtral", "dp=2,ep=2", worker::Precision::kBFloat16, /*shared_memory=*/false});
  cases.push_back({"mixtral", "dp=2,ep=2", worker::Precision::kBFloat16, true, 2});
  cases.push_back({"mixtral", "dp=2,ep=4", worker::Precision::kBFloat16, false, 2});
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Plans, DataParallelBitsTest, ::testing::ValuesIn(BitsCases()), BitsName);

}  // namespace
}  // namespace essor::testing
