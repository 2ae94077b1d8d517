// What gRPC clients are told beside the text: probabilities, prompts, the best of several, caching.
#include <string>
#include <vector>

#include "coordinator/core/seed.h"
#include "coordinator/testing/grpc_fixture.h"

namespace essor::coordinator {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::IsEmpty;

using GrpcLogprobsTest = GrpcServiceTest;

TEST_F(GrpcLogprobsTest, LogprobsComeWithTheTokens) {
  Start();
  v1::GenerateRequest request = Request("abc", 9, 6);
  request.mutable_sampling()->set_n(2);
  for (const int top : {0, 2}) {
    request.set_logprobs(top);
    const Answer answer = Generate(*cluster_, request);
    ASSERT_TRUE(answer.status.ok()) << answer.status;
    for (size_t n = 0; n < 2; ++n) {
      ASSERT_EQ(answer.logprobs[n].size(), 6u);
      for (size_t i = 0; i < 6; ++i) {
        const v1::TokenLogprobs& logprobs = answer.logprobs[n][i];
        EXPECT_EQ(logprobs.logprob(), FakeLogprob(answer.token_ids[n][i]));
        ASSERT_EQ(logprobs.top_ids_size(), top);
        ASSERT_EQ(logprobs.top_logprobs_size(), top);
        if (top == 0) continue;
        EXPECT_THAT(logprobs.top_ids(), ElementsAre('A', 'B'));
        EXPECT_THAT(logprobs.top_logprobs(), ElementsAre(-1, -2));
      }
    }
  }
  request.clear_logprobs();
  EXPECT_THAT(Generate(*cluster_, request).logprobs, Each(IsEmpty()));
}

// The second time the prompt is in the cache; it is computed again for the sake of its logits.
TEST_F(GrpcLogprobsTest, PromptLogprobsAreThoseOfAllTokensButTheFirst) {
  Start();
  const std::string prompt(100, 'p');
  v1::GenerateRequest request = Request(prompt + "q", 9, 2);
  request.set_prompt_logprobs(1);
  request.mutable_sampling()->set_n(2);
  for (int i = 0; i < 2; ++i) {
    const Answer answer = Generate(*cluster_, request);
    ASSERT_TRUE(answer.status.ok()) << answer.status;
    EXPECT_EQ(answer.prompt.text(), "");
    EXPECT_EQ(answer.prompt.token_ids_size(), 101);
    ASSERT_EQ(answer.prompt.logprobs_size(), 100);
    EXPECT_EQ(answer.prompt.logprobs(0).logprob(), -static_cast<float>('p'));
    EXPECT_EQ(answer.prompt.logprobs(99).logprob(), -static_cast<float>('q'));
    EXPECT_THAT(answer.prompt.logprobs(99).top_ids(), ElementsAre('A'));
    EXPECT_THAT(answer.logprobs, Each(IsEmpty()));
    EXPECT_EQ(answer.texts[0], FakeText(9, 101, 2));
    EXPECT_EQ(answer.usage.cached_tokens(), 0u);
  }
}

TEST_F(GrpcLogprobsTest, EchoTellsThePromptOnceAndLeavesSpecialTokensOutOfItsText) {
  Start();
  v1::GenerateRequest request = Request("", 9, 2);
  for (const uint32_t id : {uint32_t{'h'}, uint32_t{ByteTokenizer::kEos}, uint32_t{'i'}}) {
    request.mutable_tokens()->add_ids(id);
  }
  request.mutable_sampling()->set_n(2);
  request.set_echo(true);
  const Answer answer = Generate(*cluster_, request);
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_EQ(answer.prompt.text(), "hi");
  EXPECT_THAT(answer.prompt.token_ids(), ElementsAre('h', ByteTokenizer::kEos, 'i'));
  EXPECT_THAT(answer.prompt.logprobs(), IsEmpty());
  EXPECT_EQ(answer.texts[0], FakeText(9, 3, 2));
  EXPECT_EQ(answer.texts[1], FakeText(ContinuationSeed(9, 1), 3, 2));
}

TEST_F(GrpcLogprobsTest, BestOfTellsTheMostProbableOnes) {
  Start();
  const std::vector<std::string> expected = BestFakeTexts(9, 3, 6, 5);
  ASSERT_NE(expected[0], FakeText(9, 3, 6));  // so that something is chosen
  v1::GenerateRequest request = Request("abc", 9, 6);
  request.mutable_sampling()->set_n(2);
  request.set_best_of(5);
  for (const bool with_logprobs : {false, true}) {
    if (with_logprobs) request.set_logprobs(0);
    const Answer answer = Generate(*cluster_, request);
    ASSERT_TRUE(answer.status.ok()) << answer.status;
    EXPECT_THAT(answer.texts, ElementsAre(expected[0], expected[1]));
    EXPECT_THAT(answer.finish_reasons, Each(v1::FINISH_REASON_LENGTH));
    EXPECT_EQ(answer.logprobs[1].size(), with_logprobs ? 6u : 0u);
    EXPECT_EQ(answer.usage.generated_tokens(), 6u);
  }
}

Coordinator::Options OptionsOfLongSequences() {
  Coordinator::Options options = TestCluster::DefaultOptions(1);
  options.driver.membership.capacity = [](uint32_t, uint64_t) -> absl::StatusOr<model::KvCapacity> {
    return model::KvCapacity{.num_blocks = 1024};
  };
  return options;
}

// Much is told at once here: that is not a client that does not read, and no message gets large.
TEST_F(GrpcLogprobsTest, LongBestContinuationsComeInSeveralMessages) {
  Start(OptionsOfLongSequences(), 8192);
  v1::GenerateRequest request = Request("abc", 9, 4500);
  request.mutable_sampling()->set_n(2);
  request.set_best_of(3);
  request.set_logprobs(20);
  const Answer answer = Generate(*cluster_, request);
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_EQ(answer.num_messages, 4u);
  EXPECT_EQ(answer.most_tokens, 4096);
  for (size_t n = 0; n < 2; ++n) {
    ASSERT_EQ(answer.token_ids[n].size(), 4500u);
    EXPECT_EQ(answer.texts[n], std::string(answer.token_ids[n].begin(), answer.token_ids[n].end()));
    ASSERT_EQ(answer.logprobs[n].size(), 4500u);
    for (size_t i = 0; i < 4500; ++i) {
      ASSERT_EQ(answer.logprobs[n][i].logprob(), FakeLogprob(answer.token_ids[n][i])) << i;
    }
  }
}

TEST_F(GrpcLogprobsTest, LongPromptsComeInSeveralMessages) {
  Start(OptionsOfLongSequences(), 8192);
  std::string prompt;
  for (int i = 0; i < 5000; ++i) prompt.push_back(static_cast<char>('a' + i % 26));
  v1::GenerateRequest request = Request(prompt, 9, 1);
  request.set_prompt_logprobs(0);
  request.set_echo(true);
  const Answer answer = Generate(*cluster_, request);
  ASSERT_TRUE(answer.status.ok()) << answer.status;
  EXPECT_EQ(answer.num_messages, 3u);
  EXPECT_EQ(answer.most_tokens, 4096);
  EXPECT_EQ(answer.prompt.text(), prompt);
  ASSERT_EQ(answer.prompt.token_ids_size(), 5000);
  ASSERT_EQ(answer.prompt.logprobs_size(), 4999);
  for (int i = 1; i < 5000; ++i) {
    ASSERT_EQ(answer.prompt.token_ids(i), static_cast<uint32_t>(prompt[i])) << i;
    ASSERT_EQ(answer.prompt.logprobs(i - 1).logprob(), -static_cast<float>(prompt[i])) << i;
  }
}

// Whole blocks of 16 tokens, and never the last token of a prompt.
TEST_F(GrpcLogprobsTest, UsageTellsWhatWasCached) {
  Start();
  const auto cached = [&](const std::string& prompt, const std::string& salt) {
    v1::GenerateRequest request = Request(prompt, 9, 3);
    request.set_cache_salt(salt);
    const Answer answer = Generate(*cluster_, request);
    EXPECT_EQ(answer.texts[0], FakeText(9, static_cast<uint32_t>(prompt.size()), 3));
    return answer.usage.cached_tokens();
  };
  const std::string prompt = "A prompt of forty tokens, each one byte.";
  ASSERT_EQ(prompt.size(), 40u);
  EXPECT_EQ(cached(prompt, ""), 0u);
  EXPECT_EQ(cached(prompt, ""), 32u);
  EXPECT_EQ(cached(prompt.substr(0, 32), ""), 16u);
  EXPECT_EQ(cached("B" + prompt, ""), 0u);
  EXPECT_EQ(cached(prompt, "pepper"), 0u);
  EXPECT_EQ(cached(prompt, "pepper"), 32u);
}

TEST_F(GrpcLogprobsTest, ScoresNameTheMostProbableTokens) {
  Start();
  v1::ScoreRequest request;
  for (uint32_t i = 0; i < 50; ++i) request.add_sequences()->mutable_ids()->Add(i + 1);
  for (uint32_t i = 0; i < 50; ++i) request.mutable_sequences(3)->add_ids(i);
  request.set_top_n(2);
  grpc::ClientContext context;
  const auto reader = cluster_->inference_->Score(&context, request);
  v1::ScoreResponse response;
  std::vector<v1::TokenLogprobs> tops;
  while (reader->Read(&response)) {
    ASSERT_EQ(response.tops_size(), response.logprobs_size());
    EXPECT_EQ(response.tops_size() > 0, response.sequence_index() == 3);
    tops.insert(tops.end(), response.tops().begin(), response.tops().end());
  }
  EXPECT_TRUE(reader->Finish().ok());
  ASSERT_EQ(tops.size(), 50u);
  for (uint32_t i = 0; i < 50; ++i) {
    EXPECT_EQ(tops[i].logprob(), -static_cast<float>(i));
    EXPECT_THAT(tops[i].top_ids(), ElementsAre('A', 'B'));
    EXPECT_THAT(tops[i].top_logprobs(), ElementsAre(-1, -2));
  }
}

}  // namespace
}  // namespace essor::coordinator
