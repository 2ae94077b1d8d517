// What tests of the HTTP front end share: a cluster with a fake worker, and a client's calls.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_split.h"
#include "coordinator/testing/raw_http.h"
#include "coordinator/testing/test_cluster.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace essor::coordinator {

class HttpServerTest : public testing::Test {
 protected:
  void Start(absl::Duration step_time = absl::ZeroDuration(),
             Coordinator::Options options = TestCluster::DefaultOptions(1)) {
    cluster_ = std::make_unique<TestCluster>(std::move(options));
    ASSERT_TRUE(cluster_->start_error_.ok()) << cluster_->start_error_;
    FakeWorker::Options worker = cluster_->WorkerOptions("w1");
    worker.step_time = step_time;
    cluster_->AddWorker(std::move(worker));
    ASSERT_TRUE(cluster_->WaitReady());
  }
  std::string address() const { return cluster_->coordinator_->http_address(); }
  Driver& driver() { return cluster_->coordinator_->driver(); }
  HttpAnswer Post(const std::string& path, const std::string& body) const {
    return Fetch(address(), "POST", path, body);
  }
  static std::string Error(const HttpAnswer& answer, const char* key) {
    const nlohmann::json body = nlohmann::json::parse(answer.body, nullptr, false);
    if (!body.is_object() || !body.contains("error")) return "no error: " + answer.body;
    const nlohmann::json& value = body["error"][key];
    return value.is_string() ? value.get<std::string>() : value.dump();
  }
  // The data of each event of a stream, checking the exact framing.
  static std::vector<std::string> Events(const HttpAnswer& answer) {
    std::vector<std::string> events = absl::StrSplit(answer.body, "\n\n");
    EXPECT_EQ(events.back(), "");
    events.pop_back();
    for (std::string& event : events) {
      EXPECT_EQ(event.rfind("data: ", 0), 0u) << event;
      event.erase(0, 6);
    }
    return events;
  }

  std::unique_ptr<TestCluster> cluster_;
};

}  // namespace essor::coordinator
