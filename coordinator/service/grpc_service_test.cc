// The gRPC services end to end: a real coordinator, real streams, fake workers.
#include <future>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/error_details.h"
#include "common/grpc_status.h"
#include "coordinator/core/seed.h"
#include "coordinator/testing/grpc_fixture.h"
#include "google/rpc/status.pb.h"

namespace essor::coordinator {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST_F(GrpcServiceTest, GeneratesWhatTheWorkersSample) {
  Start(TestCluster::DefaultOptions(2));
  const Answer answer = Generate(*cluster_, Request("hello", 42, 20));
  EXPECT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_EQ(answer.texts[0], FakeText(42, 5, 20));
  EXPECT_EQ(answer.token_ids[0].size(), 20u);
  EXPECT_EQ(answer.finish_reasons[0], v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(answer.usage.prompt_tokens(), 5u);
  EXPECT_EQ(answer.usage.generated_tokens(), 20u);
  EXPECT_THAT(answer.request_id, HasSubstr("req-"));
}

// Many at once give the same as one at a time, with prompts longer than a step's budget among them.
TEST_F(GrpcServiceTest, ConcurrentRequestsGetTheTokensTheyWouldGetAlone) {
  Start();
  std::vector<std::future<Answer>> answers;
  for (uint32_t i = 0; i < 32; ++i) {
    answers.push_back(std::async(std::launch::async, [this, i] {
      return Generate(*cluster_, Request(std::string(1 + i * 7, 'p'), i, 30));
    }));
  }
  for (uint32_t i = 0; i < 32; ++i) {
    const Answer answer = answers[i].get();
    EXPECT_TRUE(answer.status.ok()) << answer.status;
    EXPECT_EQ(answer.texts[0], FakeText(i, 1 + i * 7, 30)) << i;
  }
  EXPECT_EQ(cluster_->coordinator_->driver().num_alive_requests(), 0u);
}

TEST_F(GrpcServiceTest, ContinuationsHaveSeedsOfTheirOwn) {
  Start();
  v1::GenerateRequest request = Request("abc", 9, 6);
  request.mutable_sampling()->set_n(3);
  const Answer answer = Generate(*cluster_, request);
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  for (uint32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(answer.texts[i], FakeText(ContinuationSeed(9, i), 3, 6));
    EXPECT_EQ(answer.finish_reasons[i], v1::FINISH_REASON_LENGTH);
  }
}

TEST_F(GrpcServiceTest, SamplingFieldsReachTheWorkers) {
  Start();
  v1::GenerateRequest request = Request("abc", 9, 6);
  v1::SamplingParams* const params = request.mutable_sampling();
  params->set_typical_p(0.5f);
  params->set_repetition_penalty(1.25f);
  params->set_presence_penalty(-0.5f);
  params->set_frequency_penalty(0.75f);
  (*params->mutable_logit_bias())[200] = 1.5f;
  (*params->mutable_logit_bias())[7] = -2.5f;
  params->set_min_new_tokens(4);
  request.set_logprobs(0);
  request.set_priority(5);
  request.set_tenant("blue");
  ASSERT_TRUE(Generate(*cluster_, request).status.ok());
  const v1::SequenceSampling sampling = cluster_->workers_[0]->last_sampling();
  EXPECT_EQ(sampling.typical_p(), 0.5f);
  EXPECT_EQ(sampling.repetition_penalty(), 1.25f);
  EXPECT_EQ(sampling.presence_penalty(), -0.5f);
  EXPECT_EQ(sampling.frequency_penalty(), 0.75f);
  EXPECT_THAT(sampling.bias_ids(), ElementsAre(7, 200));
  EXPECT_THAT(sampling.biases(), ElementsAre(-2.5f, 1.5f));
  EXPECT_THAT(sampling.late_ids(), ElementsAre(ByteTokenizer::kEos));
  EXPECT_EQ(sampling.min_new_tokens(), 4u);
  EXPECT_EQ(sampling.logprobs(), 1u);
}

TEST_F(GrpcServiceTest, StopStringEndsTheTextBeforeIt) {
  Start();
  const std::string full = FakeText(5, 1, 30);
  v1::GenerateRequest request = Request("x", 5, 30);
  request.mutable_sampling()->add_stop(full.substr(10, 4));
  const Answer answer = Generate(*cluster_, request);
  EXPECT_EQ(answer.texts[0], full.substr(0, full.find(full.substr(10, 4))));
  EXPECT_EQ(answer.finish_reasons[0], v1::FINISH_REASON_STOP);
}

TEST_F(GrpcServiceTest, ChatIsRenderedByTheTemplate) {
  Start();
  v1::GenerateRequest request;
  auto* message = request.mutable_chat()->add_messages();
  message->set_role("user");
  message->set_content("say \"hi\"\n");
  request.mutable_sampling()->set_seed(1);
  request.mutable_sampling()->set_max_new_tokens(3);
  const Answer answer = Generate(*cluster_, request);
  const std::string rendered = R"([{"role":"user","content":"say \"hi\"\n"}]>)";
  EXPECT_EQ(answer.usage.prompt_tokens(), rendered.size()) << answer.status;
}

// Each row: what is sent, the field named in google.rpc.BadRequest, a part of the message.
TEST_F(GrpcServiceTest, BadFieldsAreNamedInTheStatusDetails) {
  Start();
  struct Bad {
    v1::GenerateRequest request;
    absl::StatusCode code;
    std::string field;
    std::string message;
  };
  std::vector<Bad> cases;
  const auto add = [&](absl::StatusCode code, const std::string& field, const std::string& message,
                       auto spoil) {
    Bad bad{Request("hello", 1, 4), code, field, message};
    spoil(bad.request);
    cases.push_back(std::move(bad));
  };
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  add(kInvalid, "input", "one of text, tokens and chat is needed",
      [](auto& request) { request.clear_input(); });
  add(kInvalid, "text", "is empty", [](auto& request) { request.set_text(""); });
  add(kInvalid, "tokens.ids", "id 257 at position 1 is outside the vocabulary of 257",
      [](auto& request) {
        request.mutable_tokens()->add_ids(1);
        request.mutable_tokens()->add_ids(257);
      });
  add(kInvalid, "tokens.ids", "is empty", [](auto& request) { request.mutable_tokens(); });
  add(kInvalid, "text", "600 tokens do not fit",
      [](auto& request) { request.set_text(std::string(600, 'x')); });
  add(kInvalid, "text", "bytes cannot fit the context",
      [](auto& request) { request.set_text(std::string(100000, 'x')); });
  add(kInvalid, "sampling.temperature", "nan is not within 0 and 2",
      [](auto& request) { request.mutable_sampling()->set_temperature(NAN); });
  add(kInvalid, "sampling.n", "17 is not within 1 and 16",
      [](auto& request) { request.mutable_sampling()->set_n(17); });
  add(kInvalid, "sampling.max_new_tokens", "exceed the context of 512 tokens",
      [](auto& request) { request.mutable_sampling()->set_max_new_tokens(508); });
  add(kInvalid, "sampling.typical_p", "nan is not within 0 and 1",
      [](auto& request) { request.mutable_sampling()->set_typical_p(NAN); });
  add(kInvalid, "sampling.logit_bias", "id 257 is outside the vocabulary of 257",
      [](auto& request) { (*request.mutable_sampling()->mutable_logit_bias())[257] = 1; });
  add(kInvalid, "sampling.logit_bias", "nan is not within -100 and 100",
      [](auto& request) { (*request.mutable_sampling()->mutable_logit_bias())[5] = NAN; });
  add(kInvalid, "sampling.min_new_tokens", "5 is not within 0 and 4",
      [](auto& request) { request.mutable_sampling()->set_min_new_tokens(5); });
  add(kInvalid, "logprobs", "21 is not within 0 and 20",
      [](auto& request) { request.set_logprobs(21); });
  add(kInvalid, "prompt_logprobs", "4294967295 is not within 0 and 20",
      [](auto& request) { request.set_prompt_logprobs(UINT32_MAX); });
  add(kInvalid, "best_of", "0 is not within 1 and 16",
      [](auto& request) { request.set_best_of(0); });
  add(kInvalid, "priority", "-101 is not within -100 and 100",
      [](auto& request) { request.set_priority(-101); });
  add(kInvalid, "tenant", "printable", [](auto& request) { request.set_tenant("two words"); });
  add(kInvalid, "cache_salt", "129 bytes are more than 128",
      [](auto& request) { request.set_cache_salt(std::string(129, 's')); });
  add(kInvalid, "request_id", "printable",
      [](auto& request) { request.set_request_id("two words"); });
  add(kInvalid, "chat", "no messages", [](auto& request) { request.mutable_chat(); });
  add(absl::StatusCode::kNotFound, "model", "'other' is not served here, 'fake-model' is",
      [](auto& request) { request.set_model("other"); });
  for (const Bad& bad : cases) {
    const Answer answer = Generate(*cluster_, bad.request);
    EXPECT_EQ(answer.status.code(), bad.code) << bad.field << " " << answer.status;
    EXPECT_EQ(FieldOf(answer.status), bad.field) << answer.status;
    EXPECT_THAT(std::string(answer.status.message()), HasSubstr(bad.message));
  }
  EXPECT_TRUE(Generate(*cluster_, Request("still fine", 1, 4)).status.ok());
}

TEST_F(GrpcServiceTest, OversizedMessageIsResourceExhausted) {
  Start();
  v1::GenerateRequest request = Request("x", 1, 1);
  request.set_text(std::string(65 << 20, 'x'));
  EXPECT_EQ(Generate(*cluster_, request).status.code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(GrpcServiceTest, RunningRequestIdIsRefusedTheSecondTime) {
  step_time_ = absl::Milliseconds(20);
  Start();
  v1::GenerateRequest request = Request("x", 1, 50);
  request.set_request_id("mine");
  auto first = std::async(std::launch::async, [&] { return Generate(*cluster_, request); });
  ASSERT_TRUE(
      Eventually([&] { return cluster_->coordinator_->driver().num_alive_requests() == 1; }));
  const Answer second = Generate(*cluster_, request);
  EXPECT_EQ(second.status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(FieldOf(second.status), "request_id");
  EXPECT_EQ(first.get().request_id, "mine");
  EXPECT_TRUE(Generate(*cluster_, request).status.ok());
}

TEST_F(GrpcServiceTest, FullQueueShedsWithARetryDelay) {
  step_time_ = absl::Milliseconds(10);
  Coordinator::Options options = TestCluster::DefaultOptions(1);
  options.driver.scheduler.max_running_requests = 1;
  options.driver.scheduler.max_queued_requests = 1;
  Start(std::move(options));
  std::vector<std::future<Answer>> answers;
  for (int i = 0; i < 6; ++i) {
    answers.push_back(std::async(std::launch::async,
                                 [this] { return Generate(*cluster_, Request("x", 1, 60)); }));
  }
  int num_shed = 0;
  for (auto& future : answers) {
    const Answer answer = future.get();
    if (answer.status.ok()) continue;
    ++num_shed;
    EXPECT_EQ(answer.status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_GE(RetryDelayOf(answer.status).value_or(absl::ZeroDuration()), absl::Seconds(1));
    EXPECT_EQ(ReasonOf(answer.status), "QUEUE_FULL");
  }
  EXPECT_EQ(num_shed, 4);
}

// Cancelling the call frees slot and blocks; other streams do not notice.
TEST_F(GrpcServiceTest, CancelledCallFreesItsSequences) {
  step_time_ = absl::Milliseconds(5);
  Start();
  grpc::ClientContext context;
  const auto reader = cluster_->inference_->Generate(&context, Request("x", 1, 400));
  v1::GenerateResponse response;
  ASSERT_TRUE(reader->Read(&response));
  context.TryCancel();
  EXPECT_TRUE(Eventually([&] { return cluster_->coordinator_->driver().num_alive_requests() == 0; },
                         absl::Seconds(1)));
  EXPECT_TRUE(Generate(*cluster_, Request("y", 2, 3)).status.ok());
  // The next step told the worker to let go of the cancelled sequence.
  EXPECT_LE(cluster_->workers_[0]->num_slots_in_use(), 1u);
  while (reader->Read(&response)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(GrpcServiceTest, DeadlineEndsTheRequest) {
  step_time_ = absl::Milliseconds(5);
  Start();
  const Answer answer = Generate(*cluster_, Request("x", 1, 400), absl::Milliseconds(200));
  EXPECT_EQ(answer.status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(Eventually([&] { return cluster_->coordinator_->driver().num_alive_requests() == 0; },
                         absl::Seconds(1)));
}

TEST_F(GrpcServiceTest, ScoresComeInOrderOfPosition) {
  Start();
  v1::ScoreRequest request;
  std::vector<std::vector<uint32_t>> sequences = {{}, {7}, {1, 2, 3}};
  for (uint32_t i = 0; i < 200; ++i) sequences[0].push_back(i);
  for (const auto& sequence : sequences) {
    request.add_sequences()->mutable_ids()->Add(sequence.begin(), sequence.end());
  }
  for (const bool return_logits : {false, true}) {
    request.set_return_logits(return_logits);
    grpc::ClientContext context;
    const auto reader = cluster_->inference_->Score(&context, request);
    std::vector<std::vector<float>> logprobs(3);
    std::vector<uint32_t> positions(3, 0);
    std::vector<size_t> logits(3, 0);
    v1::ScoreResponse response;
    while (reader->Read(&response)) {
      const uint32_t index = response.sequence_index();
      EXPECT_EQ(response.first_position(), positions[index]);
      positions[index] += response.num_positions();
      logits[index] += response.logits().size();
      for (const float value : response.logprobs()) logprobs[index].push_back(value);
    }
    EXPECT_TRUE(reader->Finish().ok());
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(positions[i], sequences[i].size());
      EXPECT_EQ(logits[i], return_logits ? sequences[i].size() * 257 * 4 : 0);
      ASSERT_EQ(logprobs[i].size(), sequences[i].size() - 1);
      for (size_t k = 0; k < logprobs[i].size(); ++k) {
        EXPECT_EQ(logprobs[i][k], -static_cast<float>(sequences[i][k + 1]));
      }
    }
  }
}

TEST_F(GrpcServiceTest, ScoreRefusesBadIds) {
  Start();
  v1::ScoreRequest request;
  request.add_sequences()->mutable_ids()->Add(999);
  grpc::ClientContext context;
  const auto reader = cluster_->inference_->Score(&context, request);
  v1::ScoreResponse response;
  EXPECT_FALSE(reader->Read(&response));
  const absl::Status status = FromGrpcStatus(reader->Finish());
  EXPECT_EQ(FieldOf(status), "sequences[0].ids");
}

TEST_F(GrpcServiceTest, TokenizeDetokenizeAndModels) {
  Start();
  grpc::ClientContext tokenize;
  v1::TokenizeRequest text;
  text.set_text("ab");
  v1::TokenizeResponse ids;
  ASSERT_TRUE(cluster_->inference_->Tokenize(&tokenize, text, &ids).ok());
  EXPECT_THAT(ids.token_ids(), ElementsAre('a', 'b'));

  grpc::ClientContext detokenize;
  v1::DetokenizeRequest back;
  back.add_token_ids('o');
  back.add_token_ids('k');
  v1::DetokenizeResponse restored;
  ASSERT_TRUE(cluster_->inference_->Detokenize(&detokenize, back, &restored).ok());
  EXPECT_EQ(restored.text(), "ok");

  grpc::ClientContext bad;
  back.add_token_ids(100000);
  const absl::Status status =
      FromGrpcStatus(cluster_->inference_->Detokenize(&bad, back, &restored));
  EXPECT_EQ(FieldOf(status), "token_ids");

  grpc::ClientContext models;
  v1::ListModelsResponse listed;
  ASSERT_TRUE(cluster_->inference_->ListModels(&models, {}, &listed).ok());
  EXPECT_EQ(listed.models(0).name(), "fake-model");
  grpc::ClientContext get;
  v1::GetModelResponse model;
  ASSERT_TRUE(cluster_->inference_->GetModel(&get, {}, &model).ok());
  EXPECT_EQ(model.model().max_context_tokens(), 512u);
}

// The best continuations are told when all have ended: far more at once than waits for a slow
// reader.
TEST_F(GrpcServiceTest, AnswersToldAtOnceAreNotTakenForUnreadOnes) {
  Start();
  v1::GenerateRequest request = Request("x", 1, 500);
  request.mutable_sampling()->set_n(12);
  request.set_best_of(16);
  request.set_logprobs(20);
  const Answer answer = Generate(*cluster_, request, absl::Minutes(1));
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  for (const auto& ids : answer.token_ids) EXPECT_EQ(ids.size(), 500u);
}

// A client that never reads is bounded by its buffer; gRPC's own windows hold some of it, so the
// test needs an answer of many messages and looks at the scheduler, not at the client.
TEST_F(GrpcServiceTest, SlowReaderDoesNotStopOthers) {
  Start();
  grpc::ClientContext context;
  const auto reader = cluster_->inference_->Generate(&context, Request("x", 1, 500));
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(Generate(*cluster_, Request("y", 2, 20)).status.ok());
  }
  EXPECT_TRUE(
      Eventually([&] { return cluster_->coordinator_->driver().num_alive_requests() == 0; }));
  std::string text;
  v1::GenerateResponse response;
  while (reader->Read(&response)) text += response.text();
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(text, FakeText(1, 1, 500));
}

}  // namespace
}  // namespace essor::coordinator
