#include "client/cli/cluster_flags.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace essor::cli {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

TEST(ClusterFlagsTest, ExactlyOneOfModelAndServer) {
  ClusterFlags flags;
  EXPECT_TRUE(absl::IsInvalidArgument(CheckClusterFlags(flags)));
  flags.server = "127.0.0.1:1";
  EXPECT_TRUE(CheckClusterFlags(flags).ok());
  flags.local.model = "m";
  EXPECT_TRUE(absl::IsInvalidArgument(CheckClusterFlags(flags)));
  flags.server.clear();
  EXPECT_TRUE(CheckClusterFlags(flags).ok());
  flags.local.plan = "tp=two";
  EXPECT_TRUE(absl::IsInvalidArgument(CheckClusterFlags(flags)));
}

TEST(ClusterFlagsTest, APlanWithoutWorkersGivesEachRankItsWorker) {
  EXPECT_EQ(ToClusterOptions({.model = "m"}, {}).num_workers, 1);
  EXPECT_EQ(ToClusterOptions({.model = "m", .plan = "pp=2,tp=3"}, {}).num_workers, 6);
  EXPECT_EQ(ToClusterOptions({.model = "m", .workers = 2, .plan = "pp=2,tp=3"}, {}).num_workers, 2);
  EXPECT_EQ(ToClusterOptions({.model = "m", .workers = 3}, {}).num_workers, 3);
}

TEST(ClusterFlagsTest, AWorkerTakesAllRanksThatFallToIt) {
  EXPECT_THAT(ToClusterOptions({.model = "m", .workers = 1, .plan = "tp=9"}, {}).worker_flags,
              Contains("--devices=9"));
}

TEST(ClusterFlagsTest, UnsetLimitsAreLeftToTheCoordinator) {
  EXPECT_THAT(ToClusterOptions({.model = "m"}, {}).coordinator_flags,
              Not(Contains(StartsWith("--max"))));
  EXPECT_THAT(ToClusterOptions({.model = "m", .max_context = 512}, {}).coordinator_flags,
              Contains("--max-context=512"));
}

TEST(ClusterFlagsTest, DraftLayersAreTheCoordinatorsChoice) {
  EXPECT_THAT(ToClusterOptions({.model = "m"}, {}).coordinator_flags,
              Contains("--draft-layers=skip"));
  EXPECT_THAT(ToClusterOptions({.model = "m", .draft_layers = "load"}, {}).coordinator_flags,
              Contains("--draft-layers=load"));
}

}  // namespace
}  // namespace essor::cli
