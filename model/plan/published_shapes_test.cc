// Plans of published models on the clusters that people have: 8 and 16 devices of 80 and of 141 GB.
#include <cstdint>
#include <iterator>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/plan/planner.h"
#include "model/spec/spec_test_support.h"

namespace essor::model {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr uint64_t kGb = 1'000'000'000;

struct Cluster {
  uint32_t devices;
  uint64_t gigabytes;  // of each
};
constexpr Cluster kClusters[] = {{8, 80}, {16, 80}, {8, 141}, {16, 141}};

struct Shape {
  const char* name;
  DType stored;         // as published
  uint64_t gigabytes;   // of the weights, rounded down
  bool fits[4];         // with the model's whole context, by cluster
  bool fits_at_32k[4];  // with 32768 tokens a sequence
};

// DeepSeek V3 and Kimi K2 in FP8, the others in bfloat16. One sequence of the whole context has to
// fit beside the weights: for MiniMax-Text-01 10.24 million tokens of 40,960 bytes, 419 GB.
const Shape kShapes[] = {
    {"deepseek-v3", DType::kF8E4M3, 671, {false, true, true, true}, {false, true, true, true}},
    {"kimi-k2", DType::kF8E4M3, 1026, {false, true, true, true}, {false, true, true, true}},
    {"qwen3-235b-a22b", DType::kBF16, 470, {true, true, true, true}, {true, true, true, true}},
    {"minimax-text-01", DType::kBF16, 912, {false, false, false, true}, {false, true, true, true}},
    {"ernie-4.5-300b-a47b", DType::kBF16, 599, {true, true, true, true}, {true, true, true, true}},
    {"llama-4-maverick", DType::kBF16, 801, {false, true, true, true}, {false, true, true, true}},
};

class PublishedShapesTest : public ::testing::TestWithParam<Shape> {};

void ExpectSensible(const PlanChoice& choice, const Shape& shape, const Cluster& cluster) {
  const PlannedInstance& instance = choice.instance;
  EXPECT_EQ(instance.plan.NumRanks(), cluster.devices);
  uint64_t weights = 0;
  for (const MemoryPlan& memory : instance.memory) {
    EXPECT_LE(memory.total_bytes(), cluster.gigabytes * kGb);
    EXPECT_GT(memory.capacity.num_blocks, 0u);
    weights += memory.weight_bytes;
  }
  // Every parameter is somewhere, and what is held more than once (latents, attention beside spread
  // experts) is not most of it.
  EXPECT_GE(weights, shape.gigabytes * kGb);
  EXPECT_LT(static_cast<double>(weights), 1.5 * static_cast<double>(shape.gigabytes * kGb));
  EXPECT_THAT(choice.reason, HasSubstr("is predicted to be fastest of the "));
}

void ExpectReason(const absl::Status& status, const Cluster& cluster, uint64_t weights) {
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("holds this model; the leanest, pp="), HasSubstr(" weights, "),
                    HasSubstr(" more than the ")));
  // Where the weights leave room it is the context that is too long, and how much is not.
  const bool context = weights * kGb < cluster.devices * cluster.gigabytes * kGb * 9 / 10;
  EXPECT_EQ(status.message().find("; with a context of ") != std::string::npos, context)
      << status.message();
}

TEST_P(PublishedShapesTest, PlansOrSaysWhyNot) {
  const Shape& shape = GetParam();
  const ModelSpec spec = LoadSpec(std::string("configs/") + shape.name);
  for (size_t i = 0; i < std::size(kClusters); ++i) {
    for (const uint32_t context : {0u, 32768u}) {
      SCOPED_TRACE(testing::Message() << kClusters[i].devices << " x " << kClusters[i].gigabytes
                                      << " GB, context " << context);
      PlannerRequest request{.spec = &spec,
                             .num_ranks = kClusters[i].devices,
                             .memory_bytes = kClusters[i].gigabytes * kGb,
                             .stored = shape.stored};
      request.limits.max_context_tokens = context;
      const auto choice = ChoosePlan(request);
      const bool fits = context == 0 ? shape.fits[i] : shape.fits_at_32k[i];
      ASSERT_EQ(choice.ok(), fits) << choice.status();
      if (fits) {
        ExpectSensible(*choice, shape, kClusters[i]);
      } else {
        ExpectReason(choice.status(), kClusters[i], shape.gigabytes);
      }
    }
  }
}

std::string ShapeName(const ::testing::TestParamInfo<Shape>& info) {
  std::string name = info.param.name;
  for (char& c : name) {
    if (!isalnum(static_cast<unsigned char>(c))) c = '_';
  }
  return name;
}

INSTANTIATE_TEST_SUITE_P(Models, PublishedShapesTest, ::testing::ValuesIn(kShapes), ShapeName);

}  // namespace
}  // namespace essor::model
