#include "kernels/cpu/thread_pool.h"

#include <sched.h>

#include <atomic>
#include <chrono>
#include <numeric>
#include <set>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/parallel.h"

namespace essor::kernels {
namespace {

using ::testing::Each;
using ::testing::Eq;

// Spinning long, hardly, and never: the three ways to wait, in the pool and in the owner.
class ThreadPoolTest : public ::testing::TestWithParam<uint32_t> {
 protected:
  std::unique_ptr<ThreadPool> MakePool(uint32_t num_threads) {
    return ThreadPool::Create(
        {.num_threads = num_threads, .cpus = {}, .spin_iterations = GetParam()});
  }
};

INSTANTIATE_TEST_SUITE_P(SpinIterations, ThreadPoolTest, ::testing::Values(0u, 1u, 20u, 4000u));

TEST_P(ThreadPoolTest, RunsTheBodyOnceOnEachMember) {
  for (uint32_t num_threads : {1u, 2u, 3u, 5u}) {
    auto pool = MakePool(num_threads);
    ASSERT_EQ(pool->num_threads(), num_threads);
    std::vector<int> calls(num_threads, 0);  // plain ints: each member writes its own
    for (int round = 0; round < 100; ++round) {
      pool->Run([&](uint32_t thread) { ++calls[thread]; });
    }
    EXPECT_THAT(calls, Each(Eq(100)));
  }
}

TEST_P(ThreadPoolTest, MemberZeroIsTheOwner) {
  auto pool = MakePool(3);
  std::vector<std::thread::id> ids(3);
  pool->Run([&](uint32_t thread) { ids[thread] = std::this_thread::get_id(); });
  EXPECT_EQ(ids[0], std::this_thread::get_id());
  EXPECT_EQ(std::set<std::thread::id>(ids.begin(), ids.end()).size(), 3u);
}

// Plain memory written before Run is seen by members, and theirs by the owner: under TSan this is
// also the proof that the hand-over synchronises.
TEST_P(ThreadPoolTest, PublishesMemoryBothWays) {
  auto pool = MakePool(4);
  uint64_t input = 0;
  std::vector<uint64_t> outputs(4);
  for (uint64_t round = 1; round <= 2000; ++round) {
    input = round;
    pool->Run([&](uint32_t thread) { outputs[thread] = input * (thread + 1); });
    ASSERT_EQ(std::accumulate(outputs.begin(), outputs.end(), uint64_t{0}), round * 10);
  }
}

// Uneven bodies and pauses between runs make members and owner sleep and wake at every point.
TEST_P(ThreadPoolTest, LosesNoWakeUp) {
  auto pool = MakePool(3);
  std::atomic<uint64_t> sum{0};
  for (uint32_t round = 0; round < 300; ++round) {
    pool->Run([&](uint32_t thread) {
      if ((round + thread) % 7 == 0) std::this_thread::sleep_for(std::chrono::microseconds(50));
      sum.fetch_add(1, std::memory_order_relaxed);
    });
    if (round % 11 == 0) std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  EXPECT_EQ(sum.load(), 900u);
}

TEST_P(ThreadPoolTest, CanBeDestroyedUnusedAndRightAfterARun) {
  for (int i = 0; i < 20; ++i) {
    MakePool(3);
    auto pool = MakePool(2);
    pool->Run([](uint32_t) {});
  }
}

TEST(ThreadPoolPinningTest, PinsMembersRoundRobinAndCountsRefusals) {
  cpu_set_t before;
  CPU_ZERO(&before);
  ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
  int allowed = 0;
  while (!CPU_ISSET(allowed, &before)) ++allowed;

  std::vector<int> cpus(3, -1);
  {
    auto pool = ThreadPool::Create({.num_threads = 3, .cpus = {allowed}});
    pool->Run([&](uint32_t thread) { cpus[thread] = sched_getcpu(); });
    EXPECT_EQ(pool->num_unpinned(), 0u);
  }
  EXPECT_THAT(cpus, Each(Eq(allowed)));
  ASSERT_EQ(sched_setaffinity(0, sizeof(before), &before), 0);

  // No such CPU and a negative one: members 1 and 2 stay where they are, and work.
  auto pool = ThreadPool::Create({.num_threads = 3, .cpus = {allowed, CPU_SETSIZE - 1, -1}});
  std::vector<int> calls(3, 0);
  pool->Run([&](uint32_t thread) { ++calls[thread]; });
  EXPECT_EQ(pool->num_unpinned(), 2u);
  EXPECT_THAT(calls, Each(Eq(1)));
  ASSERT_EQ(sched_setaffinity(0, sizeof(before), &before), 0);
}

TEST(SplitRangeTest, CoversEverythingOnceWithAlignedBoundaries) {
  for (uint64_t count : {0, 1, 2, 7, 63, 64, 65, 1000}) {
    for (uint32_t parts : {1u, 2u, 3u, 8u}) {
      for (uint64_t granule : {1, 4, 64}) {
        uint64_t next = 0;
        for (uint32_t part = 0; part < parts; ++part) {
          const IndexRange range = SplitRange(count, parts, part, granule);
          EXPECT_EQ(range.begin, next);
          EXPECT_LE(range.begin, range.end);
          EXPECT_TRUE(range.end == count || range.end % granule == 0);
          next = range.end;
        }
        EXPECT_EQ(next, count);
      }
    }
  }
}

TEST(SplitRangeTest, PartsDifferByAtMostOneGranule) {
  EXPECT_EQ(SplitRange(10, 3, 0).end - SplitRange(10, 3, 0).begin, 4u);
  EXPECT_EQ(SplitRange(10, 3, 1).end - SplitRange(10, 3, 1).begin, 3u);
  EXPECT_EQ(SplitRange(10, 3, 2).end - SplitRange(10, 3, 2).begin, 3u);
}

TEST(ParallelRangeTest, ForksOnlyWhenItPays) {
  auto pool = ThreadPool::Create({.num_threads = 3});
  std::atomic<int> bodies{0};
  std::vector<int> visits(100, 0);
  const auto body = [&](uint64_t begin, uint64_t end) {
    ++bodies;
    for (uint64_t i = begin; i < end; ++i) ++visits[i];
  };
  ParallelRange(*pool, 100, 101, body);
  EXPECT_EQ(bodies.load(), 1);
  ParallelRange(*pool, 100, 100, body);
  EXPECT_EQ(bodies.load(), 4);
  ParallelRange(*pool, 0, 0, body);
  EXPECT_EQ(bodies.load(), 4);
  EXPECT_THAT(visits, Each(Eq(2)));
}

}  // namespace
}  // namespace essor::kernels
