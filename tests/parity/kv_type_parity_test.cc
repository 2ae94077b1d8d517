// Models whose keys and values are held in a byte each: as near to the goldens as the rounding lets
// them be, and the same bits however a prompt is cut. All else is float32.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/parity/golden.h"
#include "tests/support/local_instance.h"

namespace essor::testing {
namespace {

std::unique_ptr<LocalInstance> Instance(const std::string& name, const std::string& plan,
                                        KvType type, uint32_t threads = 1) {
  auto instance = LocalInstance::Create(
      {.model_path = absl::StrCat(ESSOR_SOURCE_DIR, "/tests/data/nano/", name),
       .plan = plan,
       .precision = worker::Precision::kFloat32,
       .limits =
           {.block_tokens = 8, .max_step_tokens = 64, .max_sequences = 4, .max_context_tokens = 96},
       .kv_type = type,
       .num_blocks = 64,
       .threads_per_rank = threads});
  EXPECT_TRUE(instance.ok()) << name << " " << plan << ": " << instance.status();
  return instance.ok() ? *std::move(instance) : nullptr;
}

double KlToGolden(LocalInstance& instance, const Golden& golden) {
  double worst = 0;
  for (const GoldenPrompt& prompt : golden.prompts) {
    const auto logits = instance.Logits(prompt.ids, 64);
    EXPECT_TRUE(logits.ok()) << logits.status();
    if (!logits.ok()) return 1e9;
    worst = std::max(worst, MeanKl(prompt.logits, *logits, instance.spec().vocab_size));
  }
  return worst;
}

double KlOf(const std::string& name, const std::string& plan, KvType type, const Golden& golden) {
  const auto instance = Instance(name, plan, type);
  return instance == nullptr ? 1e9 : KlToGolden(*instance, golden);
}

// Errors of e4m3 are 16 times those of bfloat16, which keeps four bits more.
constexpr double kFp8Square = 16 * 16;
// A byte's step is 1/127 of the vector's largest value, for the 8 to 64 normal values of these
// models m = 1.8 to 2.7 of their root mean square. bfloat16's step is 2^-7 of the power of two
// below the value; the square of step / value is 0.54 * 2^-14 on average over an octave. Hence
// errors whose squares are (m / 127)^2 / (0.54 * 2^-14) = 1.9 m^2 times bfloat16's, 6 to 14; of 512
// values, with m = 3.3, 20.
constexpr double kInt8SquareLow = 6;
constexpr double kInt8SquareHigh = 14;
constexpr double kInt8SquareOfLongVectors = 20;

// Without routers and indexers, whose choices jump, the KL follows the square of the error: beside
// that of the same model with a bfloat16 cache it is as many times larger, within a factor of two.
TEST(KvTypeParityTest, TheDivergenceOfDenseModelsFollowsTheSteps) {
  for (const char* name : {"llama", "qwen3", "moonlight_dense"}) {
    const auto golden = ReadGolden(name);
    ASSERT_TRUE(golden.ok()) << golden.status();
    const double bfloat16 = KlOf(name, "tp=1", KvType::kBFloat16, *golden);
    const double fp8 = KlOf(name, "tp=1", KvType::kFp8, *golden) / bfloat16;
    EXPECT_GT(fp8, kFp8Square / 2) << name;
    EXPECT_LT(fp8, kFp8Square * 2) << name;
    const double int8 = KlOf(name, "tp=1", KvType::kInt8, *golden) / bfloat16;
    EXPECT_GT(int8, kInt8SquareLow / 2) << name;
    EXPECT_LT(int8, kInt8SquareHigh * 2) << name;
  }
}

// All kinds of attention with keys and values, and latents of published size. The golden's own
// bfloat16 run, of KL bf16_kl, rounds everything to 8 bits, routers' inputs too; here keys and
// values alone are rounded, more coarsely by the factors above. What an indexer chooses from
// bfloat16 keys beside what it chooses from float32 ones is in the KL with a bfloat16 cache.
TEST(KvTypeParityTest, EveryKindOfAttentionStaysNearTheGolden) {
  for (const char* name :
       {"llama", "mixtral", "qwen3_moe", "gpt_oss", "llama4", "glm4_moe", "qwen3_next",
        "moonlight_dense", "deepseek_v3", "deepseek_v3_true", "deepseek_v32"}) {
    const auto golden = ReadGolden(name);
    ASSERT_TRUE(golden.ok()) << golden.status();
    for (const char* plan : {"tp=1", "tp=2"}) {
      const double bfloat16 = KlOf(name, plan, KvType::kBFloat16, *golden);
      EXPECT_LT(KlOf(name, plan, KvType::kFp8, *golden), bfloat16 + kFp8Square * golden->bf16_kl)
          << name << " " << plan;
      EXPECT_LT(KlOf(name, plan, KvType::kInt8, *golden),
                bfloat16 + kInt8SquareOfLongVectors * golden->bf16_kl)
          << name << " " << plan;
    }
  }
}

class KvTypeBitsTest : public ::testing::TestWithParam<const char*> {};

// What a row reads of others is what it would read in any other division into steps, on any number
// of threads.
TEST_P(KvTypeBitsTest, NoDivisionIntoStepsChangesABit) {
  const auto golden = ReadGolden(GetParam());
  ASSERT_TRUE(golden.ok()) << golden.status();
  const std::vector<TokenId>& ids = golden->prompts.back().ids;
  for (const KvType type : {KvType::kFp8, KvType::kInt8}) {
    for (const char* plan : {"tp=1", "tp=2"}) {
      const auto instance = Instance(GetParam(), plan, type);
      ASSERT_NE(instance, nullptr);
      const auto whole = instance->Logits(ids, 64);
      ASSERT_TRUE(whole.ok()) << whole.status();
      for (const uint32_t chunk : {1u, 3u, 16u}) {
        const auto cut = instance->Logits(ids, chunk);
        ASSERT_TRUE(cut.ok()) << cut.status();
        EXPECT_EQ(*whole, *cut) << NameOf(type) << " " << plan << " chunk " << chunk;
      }
      const auto threaded = Instance(GetParam(), plan, type, 3);
      ASSERT_NE(threaded, nullptr);
      const auto shared = threaded->Logits(ids, 7);
      ASSERT_TRUE(shared.ok()) << shared.status();
      EXPECT_EQ(*whole, *shared) << NameOf(type) << " " << plan << ", three threads";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, KvTypeBitsTest,
                         ::testing::Values("llama", "gpt_oss", "llama4", "qwen3_next",
                                           "deepseek_v3", "deepseek_v3_true", "deepseek_v32"));

}  // namespace
}  // namespace essor::testing
