#include "coordinator/planning.h"

#include <cstdint>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace essor::coordinator {
namespace {

using ::testing::HasSubstr;

TEST(PlanningTest, TheTypeOfTheCacheIsChosenByName) {
  const auto source = model::ModelSource::Open(ESSOR_SOURCE_DIR "/tests/data/nano/llama");
  ASSERT_TRUE(source.ok()) << source.status();
  const auto type_of = [&](const std::string& name) -> absl::StatusOr<KvType> {
    PlanningOptions options;
    options.kv_dtype = name;
    const auto instance = PlanInstance(options, **source);
    if (!instance.ok()) return instance.status();
    return instance->limits.kv_type;
  };
  EXPECT_EQ(type_of("auto").value(), KvType::kFloat32);
  for (const KvType type : {KvType::kFloat32, KvType::kBFloat16, KvType::kFp8, KvType::kInt8}) {
    EXPECT_EQ(type_of(NameOf(type)).value(), type);
  }
  const absl::Status status = type_of("int4").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("kv_dtype: \"int4\" is none of auto"));
}

// The blocks that fit in a rank's memory are those of the type.
TEST(PlanningTest, BytesForKeysAndValuesMakeMoreBlocksFit) {
  const auto source = model::ModelSource::Open(ESSOR_SOURCE_DIR "/tests/data/nano/llama");
  ASSERT_TRUE(source.ok()) << source.status();
  const auto blocks_of = [&](const char* name, uint64_t memory_bytes) -> uint32_t {
    PlanningOptions options;
    options.kv_dtype = name;
    options.limits.max_sequences = 1 << 20;
    options.limits.max_step_tokens = 16;
    const auto instance = PlanInstance(options, **source);
    EXPECT_TRUE(instance.ok()) << instance.status();
    if (!instance.ok()) return 0;
    const auto capacity = MakeCapacity(options, *instance, **source)(0, memory_bytes);
    EXPECT_TRUE(capacity.ok()) << capacity.status();
    return capacity.ok() ? capacity->num_blocks : 0;
  };
  // What two more GB hold: weights and workspaces are the same.
  const auto in_two_gb = [&](const char* name) {
    return static_cast<double>(blocks_of(name, uint64_t{4} << 30) -
                               blocks_of(name, uint64_t{2} << 30));
  };
  const double bfloat16 = in_two_gb("bfloat16");
  EXPECT_NEAR(in_two_gb("float32") / bfloat16, 0.5, 0.001);
  EXPECT_NEAR(in_two_gb("fp8") / bfloat16, 2, 0.001);
  EXPECT_NEAR(in_two_gb("int8") / bfloat16, 2 * 16.0 / 20, 0.001) << "heads of 16 and their scales";
}

}  // namespace
}  // namespace essor::coordinator
