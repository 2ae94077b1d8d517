#include "client/cluster/supervision.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace essor::client {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const absl::Time kNow = absl::UnixEpoch() + absl::Hours(1);

TEST(RestartTimeTest, AChildThatWasNeverReadyAndEndedByItselfIsNotStartedAgain) {
  EXPECT_EQ(RestartTime({.was_ready = false, .killed = false, .restarts = {}}, kNow), std::nullopt);
}

TEST(RestartTimeTest, AChildThatWasKilledBeforeItWasReadyGetsThreeMoreChances) {
  const absl::Time old = kNow - absl::Minutes(2);
  EXPECT_EQ(RestartTime({.was_ready = false, .killed = true, .restarts = {old, old}}, kNow),
            kNow + absl::Milliseconds(100));
  EXPECT_EQ(RestartTime({.was_ready = false, .killed = true, .restarts = {old, old, old}}, kNow),
            std::nullopt);
}

TEST(RestartTimeTest, PausesDoubleWithRecentRestartsOnly) {
  EXPECT_EQ(RestartTime({.was_ready = true, .killed = false, .restarts = {}}, kNow),
            kNow + absl::Milliseconds(100));
  const absl::Time recent = kNow - absl::Seconds(1);
  EXPECT_EQ(RestartTime({.was_ready = true, .killed = false, .restarts = {recent, recent}}, kNow),
            kNow + absl::Milliseconds(400));
  const absl::Time old = kNow - absl::Minutes(2);
  EXPECT_EQ(RestartTime({.was_ready = true, .killed = false, .restarts = {old, old, recent}}, kNow),
            kNow + absl::Milliseconds(200));
  EXPECT_EQ(
      RestartTime(
          {.was_ready = true, .killed = false, .restarts = std::vector<absl::Time>(40, recent)},
          kNow),
      kNow + absl::Seconds(5));
}

TEST(LostWorkersTest, AWorkerMissingTwiceInARowIsLost) {
  LostWorkers lost;
  EXPECT_THAT(lost.Update(1, {10, 11}, {10, 11}), IsEmpty());
  EXPECT_THAT(lost.Update(1, {10}, {10, 11}), IsEmpty());
  EXPECT_THAT(lost.Update(1, {10}, {10, 11}), ElementsAre(11));
}

TEST(LostWorkersTest, RejoiningClearsTheCount) {
  LostWorkers lost;
  lost.Update(1, {10}, {10});
  EXPECT_THAT(lost.Update(1, {}, {10}), IsEmpty());
  EXPECT_THAT(lost.Update(1, {10}, {10}), IsEmpty());
  EXPECT_THAT(lost.Update(1, {}, {10}), IsEmpty());
}

// Workers need time to find a new coordinator; they are not lost before it has seen them.
TEST(LostWorkersTest, ANewCoordinatorStartsFromNothing) {
  LostWorkers lost;
  lost.Update(1, {10}, {10});
  for (int i = 0; i < 5; ++i) EXPECT_THAT(lost.Update(2, {}, {10}), IsEmpty());
}

TEST(LostWorkersTest, AWorkerThatHasNotJoinedYetIsNotLost) {
  LostWorkers lost;
  for (int i = 0; i < 5; ++i) EXPECT_THAT(lost.Update(1, {}, {10}), IsEmpty());
}

TEST(LostWorkersTest, AProcessThatEndedIsForgotten) {
  LostWorkers lost;
  lost.Update(1, {10}, {10});
  for (int i = 0; i < 5; ++i) EXPECT_THAT(lost.Update(1, {}, {}), IsEmpty());
}

}  // namespace
}  // namespace essor::client
