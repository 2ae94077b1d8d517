#include "worker/parallel/waiting.h"

#include <thread>

#include "gtest/gtest.h"

namespace essor::worker {
namespace {

TEST(SpinBudgetTest, RanksThatShareCoresHardlySpin) {
  const CoreShare own{
      .ranks_on_host = 2, .cores_of_host = 2, .ranks_in_process = 1, .cores_of_process = 1};
  CoreShare crowded_host = own;
  crowded_host.ranks_on_host = 3;
  CoreShare crowded_process = own;
  crowded_process.ranks_in_process = 2;
  EXPECT_GT(SpinBudget(own), 10 * SpinBudget(crowded_host));
  EXPECT_EQ(SpinBudget(crowded_host), SpinBudget(crowded_process));
}

TEST(SpinGovernorTest, SpinningInVainShrinksAndSuccessGrowsBack) {
  constexpr SteadyNanos kLongest = 200'000;
  SpinGovernor governor(kLongest);
  EXPECT_EQ(governor.NextSpin(), kLongest);
  for (int i = 0; i < 20; ++i) {
    governor.Report(/*arrived=*/false);
    governor.NextSpin();
  }
  const SteadyNanos shortest = governor.NextSpin();
  EXPECT_LT(shortest, kLongest / 20);
  EXPECT_GT(shortest, 0);
  governor.Report(/*arrived=*/true);
  EXPECT_EQ(governor.NextSpin(), 2 * shortest);
  for (int i = 0; i < 10; ++i) governor.Report(/*arrived=*/true);
  EXPECT_EQ(governor.NextSpin(), kLongest);
}

TEST(SpinGovernorTest, AThreadThatSleepsProbesAndRecoversAtOnce) {
  constexpr SteadyNanos kLongest = 200'000;
  SpinGovernor governor(kLongest);
  int since_probe = 0;
  for (int i = 0; i < 30; ++i) governor.Report(/*arrived=*/false);
  while (governor.NextSpin() != kLongest) {
    governor.Report(/*arrived=*/false);
    ASSERT_LT(++since_probe, 100);
  }
  governor.Report(/*arrived=*/true);
  EXPECT_EQ(governor.NextSpin(), kLongest);
}

TEST(SpinGovernorTest, NeverExceedsTheLongest) {
  for (const SteadyNanos longest : {SteadyNanos{0}, SteadyNanos{2000}, SteadyNanos{200'000}}) {
    SpinGovernor governor(longest);
    for (int i = 0; i < 300; ++i) {
      EXPECT_LE(governor.NextSpin(), longest);
      governor.Report(i % 3 == 0);
    }
  }
}

TEST(FutexTest, WakesASleeperAndReturnsAtOnceWhenTheWordHasChanged) {
  std::atomic<uint32_t> word{0};
  FutexWait(word, 1, 60'000 * kMillisecond);  // not 1: returns at once
  const SteadyNanos start = SteadyNow();
  std::thread waker([&] {
    word.store(1);
    FutexWake(word);
  });
  while (word.load() == 0) FutexWait(word, 0, 60'000 * kMillisecond);
  waker.join();
  EXPECT_LT(SteadyNow() - start, 30'000 * kMillisecond);
}

TEST(FutexTest, ReturnsAfterTheTimeout) {
  const std::atomic<uint32_t> word{0};
  const SteadyNanos start = SteadyNow();
  FutexWait(word, 0, 20 * kMillisecond);
  EXPECT_GE(SteadyNow() - start, 19 * kMillisecond);
}

}  // namespace
}  // namespace essor::worker
