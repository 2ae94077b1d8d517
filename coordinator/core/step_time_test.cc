#include "coordinator/core/step_time.h"

#include "gtest/gtest.h"

namespace essor::coordinator {
namespace {

double Milliseconds(absl::Duration duration) { return absl::ToDoubleMilliseconds(duration); }

TEST(StepTimeTest, NothingIsKnownAtFirst) {
  const StepTimeModel model;
  EXPECT_EQ(model.DecodeTime(8), absl::ZeroDuration());
  EXPECT_EQ(model.PrefillRowsWithin(absl::Milliseconds(1), 8, 16), UINT32_MAX);
}

// time = 10 ms + 2 ms a row + 0.5 ms a token of prompts.
TEST(StepTimeTest, LearnsBaseAndRates) {
  StepTimeModel model;
  for (uint32_t i = 0; i < 200; ++i) {
    const uint32_t rows = 1 + i % 16;
    model.Observe(rows, 0, absl::Milliseconds(10 + 2 * rows));
    model.Observe(rows, 64, absl::Milliseconds(10 + 2 * rows + 32));
  }
  EXPECT_NEAR(Milliseconds(model.DecodeTime(4)), 18, 0.01);
  EXPECT_NEAR(Milliseconds(model.DecodeTime(32)), 74, 0.01);
  EXPECT_NEAR(Milliseconds(model.PrefillTime(100)), 50, 0.5);
  EXPECT_NEAR(model.PrefillRowsWithin(absl::Milliseconds(36), 4, 16), 36, 1);
  EXPECT_EQ(model.PrefillRowsWithin(absl::Milliseconds(5), 4, 16), 16u);
}

TEST(StepTimeTest, FollowsAChange) {
  StepTimeModel model;
  for (int i = 0; i < 100; ++i) model.Observe(4, 0, absl::Milliseconds(10));
  for (int i = 0; i < 100; ++i) model.Observe(4, 0, absl::Milliseconds(30));
  EXPECT_NEAR(Milliseconds(model.DecodeTime(4)), 30, 1.5);
  EXPECT_NEAR(Milliseconds(model.DecodeTime(8)), 30, 1.5);  // no other batch was seen
}

// Prompts may take as long again as the decoding sequences, unless a time is asked for.
TEST(StepTimeTest, TargetIsTwiceTheDecodeTimeUnlessAsked) {
  EXPECT_EQ(StepTarget(absl::ZeroDuration(), absl::Milliseconds(20)), absl::Milliseconds(40));
  EXPECT_EQ(StepTarget(absl::Milliseconds(50), absl::Milliseconds(20)), absl::Milliseconds(50));
  EXPECT_EQ(StepTarget(absl::ZeroDuration(), absl::ZeroDuration()), absl::InfiniteDuration());
}

}  // namespace
}  // namespace essor::coordinator
