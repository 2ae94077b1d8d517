// A coordinator in this process with a fake model, and the fake workers it needs; for tests.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "coordinator/coordinator.h"
#include "coordinator/testing/byte_tokenizer.h"
#include "coordinator/testing/fake_worker.h"
#include "essor/v1/admin.grpc.pb.h"
#include "essor/v1/inference.grpc.pb.h"
#include "grpcpp/grpcpp.h"

namespace essor::coordinator {

// Polls `condition` for at most `limit`.
template <typename Condition>
bool Eventually(Condition condition, absl::Duration limit = absl::Seconds(10)) {
  const absl::Time end = absl::Now() + limit;
  while (!condition()) {
    if (absl::Now() > end) return false;
    absl::SleepFor(absl::Milliseconds(5));
  }
  return true;
}

// A template for tests: "role:content" lines.
class LineTemplate final : public model::ChatTemplate {
 public:
  absl::StatusOr<std::string> Render(const model::ChatInput& input) const override {
    if (input.messages_json == "[]") return absl::InvalidArgumentError("no messages");
    return input.messages_json + (input.add_generation_prompt ? ">" : "");
  }
};

class TestCluster {
 public:
  static constexpr char kBuild[] = "test-build";

  static Coordinator::Options DefaultOptions(uint32_t num_workers) {
    Coordinator::Options options;
    options.listen_grpc = options.listen_http = options.listen_cluster = "127.0.0.1:0";
    Driver::Options& driver = options.driver;
    driver.membership.num_workers = num_workers;
    driver.membership.num_ranks = num_workers;
    driver.membership.build = kBuild;
    driver.membership.weights_prefix = "fake";
    driver.membership.capacity = [](uint32_t, uint64_t) -> absl::StatusOr<model::KvCapacity> {
      return model::KvCapacity{.num_blocks = 512};
    };
    driver.scheduler = {.max_running_requests = 16,
                        .max_queued_requests = 64,
                        .num_slots = 16,
                        .max_step_tokens = 64,
                        .block_tokens = 16,
                        .max_logits_rows = 8};
    driver.assignment = {.model_path = "/fake",
                         .model_fingerprint = "f",
                         .plan = "pp=1,dp=1,tp=1,ep=1",
                         .dtype = "auto",
                         .block_tokens = 16,
                         .max_step_tokens = 64,
                         .max_sequences = 16,
                         .max_context_tokens = 512};
    driver.heartbeat_interval = absl::Milliseconds(200);
    return options;
  }

  explicit TestCluster(Coordinator::Options options, uint32_t max_context_tokens = 512) {
    model_.name = "fake-model";
    model_.family = "llama";
    model_.fingerprint = "f";
    model_.limits = {.vocab_size = 257,
                     .max_context_tokens = max_context_tokens,
                     .eos_tokens = {ByteTokenizer::kEos}};
    model_.tokenizer = &tokenizer_;
    model_.chat_template = &chat_template_;
    auto coordinator = Coordinator::Start(std::move(options), &model_);
    if (!coordinator.ok()) {
      start_error_ = coordinator.status();
      return;
    }
    coordinator_ = *std::move(coordinator);
    channel_ =
        grpc::CreateChannel(coordinator_->grpc_address(), grpc::InsecureChannelCredentials());
    inference_ = v1::Inference::NewStub(channel_);
    admin_ = v1::Admin::NewStub(channel_);
  }

  FakeWorker::Options WorkerOptions(const std::string& incarnation) const {
    FakeWorker::Options options;
    options.address = coordinator_->cluster_address();
    options.incarnation = incarnation;
    options.build = kBuild;
    return options;
  }
  FakeWorker& AddWorker(FakeWorker::Options options) {
    workers_.push_back(std::make_unique<FakeWorker>(std::move(options)));
    return *workers_.back();
  }
  FakeWorker& AddWorker(const std::string& incarnation) {
    return AddWorker(WorkerOptions(incarnation));
  }
  bool WaitReady(absl::Duration limit = absl::Seconds(10)) {
    return Eventually([this] { return coordinator_->driver().Ready(); }, limit);
  }

  absl::Status start_error_;
  ByteTokenizer tokenizer_;
  LineTemplate chat_template_;
  ServedModel model_;
  std::unique_ptr<Coordinator> coordinator_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Inference::Stub> inference_;
  std::unique_ptr<v1::Admin::Stub> admin_;
  std::vector<std::unique_ptr<FakeWorker>> workers_;  // destroyed first
};

}  // namespace essor::coordinator
