// What tests of the gRPC services share: a cluster of fake workers and a client's calls.
#pragma once

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/grpc_status.h"
#include "coordinator/testing/test_cluster.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace essor::coordinator {

// All that came back from a call of Generate.
struct Answer {
  absl::Status status;
  std::vector<std::string> texts;  // per continuation
  std::vector<std::vector<uint32_t>> token_ids;
  std::vector<v1::FinishReason> finish_reasons;
  std::vector<std::vector<v1::TokenLogprobs>> logprobs;
  v1::PromptPart prompt;
  v1::Usage usage;
  std::string request_id;
  size_t num_messages = 0;
  int most_tokens = 0;  // of a message
};

inline Answer Generate(TestCluster& cluster, const v1::GenerateRequest& request,
                       absl::Duration timeout = absl::Seconds(20)) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(timeout));
  const auto reader = cluster.inference_->Generate(&context, request);
  const size_t n = std::max(1u, request.sampling().n());
  Answer answer;
  answer.texts.resize(n);
  answer.token_ids.resize(n);
  answer.logprobs.resize(n);
  answer.finish_reasons.resize(n, v1::FINISH_REASON_UNSPECIFIED);
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
    const uint32_t index = response.index();
    answer.request_id = response.request_id();
    ++answer.num_messages;
    answer.most_tokens = std::max(
        {answer.most_tokens, response.token_ids_size(), response.prompt().token_ids_size()});
    if (response.has_prompt()) {
      EXPECT_THAT(answer.token_ids, testing::Each(testing::IsEmpty()));  // the prompt comes first
      answer.prompt.MergeFrom(response.prompt());
      continue;
    }
    answer.logprobs[index].insert(answer.logprobs[index].end(), response.logprobs().begin(),
                                  response.logprobs().end());
    answer.texts[index] += response.text();
    answer.token_ids[index].insert(answer.token_ids[index].end(), response.token_ids().begin(),
                                   response.token_ids().end());
    if (response.finish_reason() != v1::FINISH_REASON_UNSPECIFIED) {
      answer.finish_reasons[index] = response.finish_reason();
      answer.usage = response.usage();
    }
  }
  answer.status = FromGrpcStatus(reader->Finish());
  return answer;
}

inline v1::GenerateRequest Request(const std::string& text, uint64_t seed,
                                   uint32_t max_new_tokens) {
  v1::GenerateRequest request;
  request.set_text(text);
  request.mutable_sampling()->set_seed(seed);
  request.mutable_sampling()->set_max_new_tokens(max_new_tokens);
  return request;
}

// A cluster of one worker that is ready, unless a test says otherwise.
class GrpcServiceTest : public testing::Test {
 protected:
  void Start(Coordinator::Options options = TestCluster::DefaultOptions(1),
             uint32_t max_context_tokens = 512) {
    const uint32_t num_workers = options.driver.membership.num_workers;
    cluster_ = std::make_unique<TestCluster>(std::move(options), max_context_tokens);
    ASSERT_TRUE(cluster_->start_error_.ok()) << cluster_->start_error_;
    for (uint32_t i = 0; i < num_workers; ++i) {
      FakeWorker::Options worker = cluster_->WorkerOptions(absl::StrCat("w", i));
      worker.step_time = step_time_;
      cluster_->AddWorker(std::move(worker));
    }
    ASSERT_TRUE(cluster_->WaitReady());
  }
  void TearDown() override {
    if (cluster_ == nullptr) return;
    for (const auto& worker : cluster_->workers_)
      EXPECT_THAT(worker->violations(), testing::IsEmpty());
  }

  absl::Duration step_time_ = absl::ZeroDuration();
  std::unique_ptr<TestCluster> cluster_;
};

}  // namespace essor::coordinator
