#include "worker/engine/cpu_share.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace essor::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(DivideCpusTest, OneWorkerTakesAllCores) {
  const auto shares = DivideCpus({.cpus = {0, 1, 2, 3}});
  ASSERT_EQ(shares.size(), 1u);
  EXPECT_EQ(shares[0].num_threads, 4u);
  EXPECT_THAT(shares[0].cpus, ElementsAre(0, 1, 2, 3));
}

TEST(DivideCpusTest, WorkersOfAHostGetDisjointCores) {
  const auto second = DivideCpus({.cpus = {0, 1}, .local_index = 1, .local_count = 2});
  EXPECT_EQ(second[0].num_threads, 1u);
  EXPECT_THAT(second[0].cpus, ElementsAre(1));
}

TEST(DivideCpusTest, RanksOfAWorkerGetDisjointCores) {
  const auto shares = DivideCpus({.cpus = {0, 1, 2, 3}, .num_ranks = 2});
  EXPECT_THAT(shares[0].cpus, ElementsAre(0, 1));
  EXPECT_THAT(shares[1].cpus, ElementsAre(2, 3));
}

TEST(DivideCpusTest, NobodyIsPinnedWhenTheThreadsDoNotFit) {
  const auto crowded = DivideCpus({.cpus = {0, 1}, .local_index = 2, .local_count = 3});
  EXPECT_EQ(crowded[0].num_threads, 1u);
  EXPECT_THAT(crowded[0].cpus, IsEmpty());
  const auto asked = DivideCpus({.cpus = {0, 1}, .threads_wanted = 2, .local_count = 2});
  EXPECT_EQ(asked[0].num_threads, 2u);
  EXPECT_THAT(asked[0].cpus, IsEmpty());
}

}  // namespace
}  // namespace essor::worker
