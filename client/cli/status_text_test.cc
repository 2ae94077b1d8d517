#include "client/cli/status_text.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace essor::cli {
namespace {

using ::testing::HasSubstr;

v1::GetClusterResponse Cluster() {
  v1::GetClusterResponse cluster;
  cluster.set_state(v1::INSTANCE_STATE_LOADING);
  cluster.set_detail("loading: 40 %");
  cluster.set_epoch(3);
  cluster.set_plan("pp=1,dp=1,tp=1,ep=2");
  cluster.set_requests_waiting(5);
  v1::WorkerInfo& worker = *cluster.add_workers();
  worker.set_worker_id(7);
  worker.set_host("node-a");
  worker.set_pid(4242);
  v1::RankInfo& rank = *cluster.add_ranks();
  rank.set_rank(1);
  rank.set_worker_id(7);
  rank.set_load_fraction(0.4);
  rank.set_weight_bytes(5'000'000'000'000);
  cluster.mutable_model()->set_name("smol");
  return cluster;
}

TEST(StatusTextTest, TheTableNamesStateWorkersAndRanks) {
  const std::string table = ClusterTable(Cluster());
  EXPECT_THAT(table, HasSubstr("loading: loading: 40 %"));
  EXPECT_THAT(table, HasSubstr("0 running, 5 waiting"));
  EXPECT_THAT(table, HasSubstr("node-a"));
  EXPECT_THAT(table, HasSubstr("4242"));
  EXPECT_THAT(table, HasSubstr("5000.000"));
}

TEST(StatusTextTest, TheJsonHasNumbersAsNumbers) {
  const auto json = nlohmann::json::parse(ClusterJson(Cluster()));
  EXPECT_EQ(json["state"], "loading");
  EXPECT_EQ(json["epoch"], 3);
  EXPECT_EQ(json["workers"][0]["pid"], 4242);
  EXPECT_EQ(json["ranks"][0]["weight_bytes"], 5'000'000'000'000);
  EXPECT_EQ(json["model"]["name"], "smol");
}

TEST(StatusTextTest, AStateOfANewerServerIsUnknown) {
  v1::GetClusterResponse cluster;
  cluster.set_state(static_cast<v1::InstanceState>(99));
  EXPECT_EQ(nlohmann::json::parse(ClusterJson(cluster))["state"], "unknown");
}

}  // namespace
}  // namespace essor::cli
