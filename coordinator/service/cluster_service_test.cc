// The workers' side of the coordinator: joins, losses, deadlines, malformed messages; and what the
// public health service says meanwhile.
#include <functional>
#include <future>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/error_details.h"
#include "common/grpc_status.h"
#include "coordinator/testing/test_cluster.h"
#include "gmock/gmock.h"
#include "grpcpp/generic/generic_stub.h"
#include "gtest/gtest.h"

namespace essor::coordinator {
namespace {

using testing::HasSubstr;

// grpc.health.v1.Health/Check by hand: its proto is not among Debian's packages. The request is
// {string service = 1}, the answer {enum status = 1} with 1 = SERVING and 2 = NOT_SERVING.
int Health(const std::shared_ptr<grpc::Channel>& channel, const std::string& service) {
  std::string request;
  if (!service.empty()) {
    request = absl::StrCat("\x0a", std::string(1, static_cast<char>(service.size())), service);
  }
  const grpc::Slice slice(request);
  const grpc::ByteBuffer sent(&slice, 1);
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check", sent, &queue);
  call->StartCall();
  grpc::ByteBuffer received;
  grpc::Status status;
  call->Finish(&received, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  if (!status.ok()) return -static_cast<int>(status.error_code());
  grpc::Slice answer;
  EXPECT_TRUE(received.TrySingleSlice(&answer).ok());
  return answer.size() == 2 ? answer.begin()[1] : 0;
}

class ClusterServiceTest : public testing::Test {
 protected:
  void Start(uint32_t num_workers,
             const std::function<void(Coordinator::Options*)>& change = nullptr) {
    Coordinator::Options options = TestCluster::DefaultOptions(num_workers);
    if (change) change(&options);
    cluster_ = std::make_unique<TestCluster>(std::move(options));
    ASSERT_TRUE(cluster_->start_error_.ok()) << cluster_->start_error_;
  }
  Driver& driver() { return cluster_->coordinator_->driver(); }
  absl::Status Generate(uint32_t max_new_tokens) {
    v1::GenerateRequest request;
    request.set_text("x");
    request.mutable_sampling()->set_max_new_tokens(max_new_tokens);
    grpc::ClientContext context;
    const auto reader = cluster_->inference_->Generate(&context, request);
    v1::GenerateResponse response;
    while (reader->Read(&response)) {
    }
    return FromGrpcStatus(reader->Finish());
  }
  v1::GetClusterResponse Describe() {
    grpc::ClientContext context;
    v1::GetClusterResponse response;
    EXPECT_TRUE(cluster_->admin_->GetCluster(&context, {}, &response).ok());
    return response;
  }

  std::unique_ptr<TestCluster> cluster_;
};

TEST_F(ClusterServiceTest, WaitsForAllWorkersAndSaysSo) {
  Start(2);
  EXPECT_EQ(Describe().detail(), "waiting for 2 of 2 workers");
  EXPECT_EQ(Describe().state(), v1::INSTANCE_STATE_WAITING);
  cluster_->AddWorker("a");
  EXPECT_TRUE(Eventually([&] { return Describe().detail() == "waiting for 1 of 2 workers"; }));
  const absl::Status early = Generate(1);
  EXPECT_EQ(early.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(RetryDelayOf(early).has_value());
  EXPECT_THAT(std::string(early.message()), HasSubstr("waiting for 1 of 2 workers"));
  cluster_->AddWorker("b");
  ASSERT_TRUE(cluster_->WaitReady());
  const v1::GetClusterResponse state = Describe();
  EXPECT_EQ(state.state(), v1::INSTANCE_STATE_READY);
  EXPECT_EQ(state.epoch(), 1u);
  EXPECT_EQ(state.workers_size(), 2);
  EXPECT_EQ(state.ranks_size(), 2);
  EXPECT_EQ(state.model().name(), "fake-model");
  EXPECT_GE(state.steps_completed(), 1u);  // the first step is the coordinator's own
  EXPECT_EQ(state.generated_tokens(), 0u);
  EXPECT_TRUE(Generate(3).ok());
}

TEST_F(ClusterServiceTest, WorkerOfAnotherBuildIsRefusedByName) {
  Start(1);
  FakeWorker::Options options = cluster_->WorkerOptions("a");
  options.build = "other-build";
  const absl::Status status = cluster_->AddWorker(options).Wait();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(FieldOf(status), "build");
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("the worker runs other-build and the coordinator test-build"));
}

// F11: another model on a worker's disk shows when it has opened it.
TEST_F(ClusterServiceTest, WorkerWithAnotherModelIsRefusedAndTheOthersStay) {
  Start(2);
  cluster_->AddWorker("a");
  FakeWorker::Options options = cluster_->WorkerOptions("b");
  FakeWorker& other = cluster_->AddWorker(options);
  ASSERT_TRUE(cluster_->WaitReady());
  v1::WorkerMessage message;
  message.mutable_failure()->set_epoch(1);
  message.mutable_failure()->set_code(static_cast<int>(absl::StatusCode::kFailedPrecondition));
  message.mutable_failure()->set_message("model_fingerprint: ab is not cd");
  message.mutable_failure()->set_fatal(true);
  other.Send(message);
  const absl::Status status = other.Wait();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("model_fingerprint"));
  EXPECT_TRUE(driver().failure().ok());
  cluster_->AddWorker("c");
  EXPECT_TRUE(cluster_->WaitReady());
}

TEST_F(ClusterServiceTest, FatalFailureIsReportedToTheProcess) {
  Start(1);
  FakeWorker& worker = cluster_->AddWorker("a");
  ASSERT_TRUE(cluster_->WaitReady());
  v1::WorkerMessage message;
  message.mutable_failure()->set_epoch(1);
  message.mutable_failure()->set_code(static_cast<int>(absl::StatusCode::kInvalidArgument));
  message.mutable_failure()->set_message("model.safetensors: tensor x is missing");
  message.mutable_failure()->set_fatal(true);
  worker.Send(message);
  ASSERT_TRUE(Eventually([&] { return !driver().failure().ok(); }));
  EXPECT_THAT(std::string(driver().failure().message()), HasSubstr("tensor x is missing"));
}

// A killed worker: requests in flight end with UNAVAILABLE at once, and a new worker brings the
// instance back while the survivor keeps its weights.
TEST_F(ClusterServiceTest, KilledWorkerEndsRequestsAndIsReplaced) {
  Start(2);
  FakeWorker::Options slow = cluster_->WorkerOptions("a");
  slow.step_time = absl::Milliseconds(5);
  FakeWorker& survivor = cluster_->AddWorker(slow);
  FakeWorker& victim = cluster_->AddWorker("b");
  ASSERT_TRUE(cluster_->WaitReady());
  auto running = std::async(std::launch::async, [this] { return Generate(500); });
  ASSERT_TRUE(Eventually([&] { return driver().num_alive_requests() == 1; }));
  absl::SleepFor(absl::Milliseconds(50));
  const absl::Time killed = absl::Now();
  victim.Kill();
  const absl::Status status = running.get();
  EXPECT_LT(absl::Now() - killed, absl::Seconds(2));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(status), "INSTANCE_LOST");
  EXPECT_FALSE(driver().Ready());
  cluster_->AddWorker("c");
  ASSERT_TRUE(cluster_->WaitReady());
  EXPECT_TRUE(Generate(5).ok());
  EXPECT_EQ(survivor.num_loads(), 1u);
  EXPECT_EQ(Describe().epoch(), 2u);
}

// A stopped process answers nothing although its connection stands: heartbeats find it.
TEST_F(ClusterServiceTest, SilentWorkerIsDeclaredDead) {
  Start(1);
  FakeWorker& worker = cluster_->AddWorker("a");
  ASSERT_TRUE(cluster_->WaitReady());
  const absl::Time frozen = absl::Now();
  worker.Freeze();
  EXPECT_TRUE(Eventually([&] { return !driver().Ready(); }, absl::Seconds(2)));
  EXPECT_GT(absl::Now() - frozen, absl::Seconds(1));
  EXPECT_EQ(worker.Wait().code(), absl::StatusCode::kUnavailable);
}

// Heartbeats go on but a step hangs: not ready within 2 s; at the deadline the epoch is given up.
TEST_F(ClusterServiceTest, StuckStepCostsReadinessAndThenTheEpoch) {
  Start(1, [](Coordinator::Options* options) { options->driver.step_timeout = absl::Seconds(3); });
  FakeWorker& worker = cluster_->AddWorker("a");
  ASSERT_TRUE(cluster_->WaitReady());
  worker.HoldSteps(true);
  auto running = std::async(std::launch::async, [this] { return Generate(5); });
  EXPECT_TRUE(Eventually([&] { return !driver().Ready(); }, absl::Seconds(2)));
  EXPECT_EQ(driver().ReadyDetail(), "a step is overdue");
  EXPECT_EQ(running.get().code(), absl::StatusCode::kUnavailable);
  worker.HoldSteps(false);
  ASSERT_TRUE(cluster_->WaitReady());
  EXPECT_GE(Describe().epoch(), 2u);
  EXPECT_TRUE(Generate(5).ok());
}

// Malformed or unexpected messages end that stream only.
TEST_F(ClusterServiceTest, ProtocolViolationsEndTheirStream) {
  Start(1);
  FakeWorker& serving = cluster_->AddWorker("a");
  ASSERT_TRUE(cluster_->WaitReady());
  const auto violate = [&](const std::string& incarnation, v1::WorkerMessage message) {
    FakeWorker& spare = cluster_->AddWorker(incarnation);
    spare.Send(message);
    return spare.Wait();
  };
  v1::WorkerMessage result;
  result.mutable_step_result()->set_epoch(1);
  result.mutable_step_result()->set_step_id(77);
  EXPECT_EQ(violate("s1", result).code(), absl::StatusCode::kFailedPrecondition);
  v1::WorkerMessage future;
  future.mutable_ready()->set_epoch(99);
  EXPECT_THAT(std::string(violate("s2", future).message()), HasSubstr("out of order"));
  EXPECT_EQ(violate("s3", v1::WorkerMessage()).code(), absl::StatusCode::kInvalidArgument);
  v1::WorkerMessage hello;
  hello.mutable_hello();
  EXPECT_THAT(std::string(violate("s4", hello).message()), HasSubstr("second Hello"));
  // Stale ones are dropped without harm.
  v1::WorkerMessage stale;
  stale.mutable_step_result()->set_epoch(0);
  serving.Send(stale);
  EXPECT_TRUE(Generate(5).ok());
  EXPECT_EQ(Describe().epoch(), 1u);
}

TEST_F(ClusterServiceTest, TokenOutsideTheVocabularyCostsTheWorkerItsStream) {
  Start(1);
  FakeWorker::Options options = cluster_->WorkerOptions("a");
  options.forced_token = 70000;
  const absl::Status status = cluster_->AddWorker(options).Wait();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr("outside the vocabulary of 257"));
}

TEST_F(ClusterServiceTest, FirstMessageMustBeHello) {
  Start(1);
  const auto stub = v1::Cluster::NewStub(grpc::CreateChannel(
      cluster_->coordinator_->cluster_address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  const auto stream = stub->Join(&context);
  v1::WorkerMessage message;
  message.mutable_heartbeat();
  stream->Write(message);
  v1::CoordinatorMessage answer;
  EXPECT_FALSE(stream->Read(&answer));
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("hello"));
}

TEST_F(ClusterServiceTest, LeavingWorkerIsLetGoAfterRunningRequests) {
  Start(1);
  FakeWorker::Options options = cluster_->WorkerOptions("a");
  options.step_time = absl::Milliseconds(5);
  FakeWorker& worker = cluster_->AddWorker(options);
  ASSERT_TRUE(cluster_->WaitReady());
  auto running = std::async(std::launch::async, [this] { return Generate(40); });
  ASSERT_TRUE(Eventually([&] { return driver().num_alive_requests() == 1; }));
  v1::WorkerMessage message;
  message.mutable_leaving();
  worker.Send(message);
  EXPECT_TRUE(Eventually([&] { return !driver().Ready(); }));
  EXPECT_EQ(Generate(1).code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(running.get().ok());
  EXPECT_TRUE(Eventually([&] { return worker.shut_down(); }));
}

TEST_F(ClusterServiceTest, ClusterIsNotServedOnThePublicPort) {
  Start(1);
  const auto stub = v1::Cluster::NewStub(cluster_->channel_);
  grpc::ClientContext context;
  const auto stream = stub->Join(&context);
  v1::CoordinatorMessage answer;
  EXPECT_FALSE(stream->Read(&answer));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(ClusterServiceTest, HealthFollowsReadiness) {
  constexpr int kServing = 1;
  constexpr int kNotServing = 2;
  Start(1);
  const auto& channel = cluster_->channel_;
  EXPECT_EQ(Health(channel, ""), kNotServing);
  EXPECT_EQ(Health(channel, "no.such.Service"), -grpc::StatusCode::NOT_FOUND);
  cluster_->AddWorker("a");
  ASSERT_TRUE(cluster_->WaitReady());
  cluster_->coordinator_->Poll();
  EXPECT_EQ(Health(channel, ""), kServing);
  EXPECT_EQ(Health(channel, "essor.v1.Inference"), kServing);
  grpc::ClientContext context;
  v1::DrainResponse drained;
  ASSERT_TRUE(cluster_->admin_->Drain(&context, {}, &drained).ok());
  cluster_->coordinator_->Poll();
  EXPECT_EQ(Health(channel, "essor.v1.Inference"), kNotServing);
  const absl::Status refused = Generate(1);
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(refused), "DRAINING");
  EXPECT_EQ(Describe().state(), v1::INSTANCE_STATE_DRAINING);
}

TEST_F(ClusterServiceTest, PortInUseIsNamed) {
  Start(1);
  for (const bool grpc_port : {true, false}) {
    Coordinator::Options options = TestCluster::DefaultOptions(1);
    const std::string taken =
        grpc_port ? cluster_->coordinator_->grpc_address() : cluster_->coordinator_->http_address();
    (grpc_port ? options.listen_grpc : options.listen_http) = taken;
    const TestCluster second(std::move(options));
    EXPECT_EQ(second.start_error_.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(second.start_error_.message()),
                HasSubstr(absl::StrCat("cannot listen on ", taken)));
  }
}

}  // namespace
}  // namespace essor::coordinator
