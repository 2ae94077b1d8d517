#include "client/cli/cluster_flags.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace essor::cli {
namespace {

using ::testing::AllOf;
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

TEST(ClusterFlagsTest, SchedulingIsTheCoordinators) {
  LocalFlags flags{.model = "m", .kv_dtype = "int8"};
  EXPECT_THAT(ToClusterOptions(flags, {}).coordinator_flags,
              AllOf(Contains("--kv-dtype=int8"), Contains("--prefix-cache=all"),
                    Not(Contains(StartsWith("--reserve"))), Not(Contains(StartsWith("--target"))),
                    Not(Contains(StartsWith("--tenant")))));
  CLI::App app;
  AddLocalFlags(app, flags);
  app.parse(
      "--prefix-cache tenant --reserve-new-tokens 0 --target-step-ms 40 "
      "--tenant-weight blue=2,green=3 --tenant-weight a=b=0.5");
  EXPECT_TRUE(CheckLocalFlags(flags).ok());
  EXPECT_THAT(ToClusterOptions(flags, {}).coordinator_flags,
              AllOf(Contains("--prefix-cache=tenant"), Contains("--reserve-new-tokens=0"),
                    Contains("--target-step-ms=40"), Contains("--tenant-weight=blue=2"),
                    Contains("--tenant-weight=green=3"), Contains("--tenant-weight=a=b=0.5")));
  flags.tenant_weights = {"blue"};
  EXPECT_THAT(std::string(CheckLocalFlags(flags).message()), HasSubstr("NAME=WEIGHT"));
}

}  // namespace
}  // namespace essor::cli
