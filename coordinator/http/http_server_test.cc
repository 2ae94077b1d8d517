// The HTTP front end over real sockets, with a coordinator and fake workers behind it.
#include <future>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "coordinator/core/seed.h"
#include "coordinator/testing/http_fixture.h"

namespace essor::coordinator {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;

TEST_F(HttpServerTest, CompletionInOnePiece) {
  Start();
  const HttpAnswer answer = Post("/v1/completions", R"({"model":"fake-model","prompt":"hello",
      "max_tokens":7,"seed":3,"return_token_ids":true,"unknown_field":{"x":1}})");
  ASSERT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(answer.Field("content-type"), "application/json");
  EXPECT_THAT(answer.Field("x-request-id"), HasSubstr("req-"));
  const json body = json::parse(answer.body);
  EXPECT_EQ(body["object"], "text_completion");
  EXPECT_EQ(body["choices"][0]["text"], FakeText(3, 5, 7));
  EXPECT_EQ(body["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(body["choices"][0]["token_ids"].size(), 7u);
  EXPECT_EQ(body["usage"]["prompt_tokens"], 5);
  EXPECT_EQ(body["usage"]["completion_tokens"], 7);
  EXPECT_EQ(body["usage"]["total_tokens"], 12);
}

TEST_F(HttpServerTest, PromptsOfEveryShape) {
  Start();
  const auto texts = [this](const std::string& prompt, int n) {
    const HttpAnswer answer =
        Post("/v1/completions",
             absl::StrCat(R"({"max_tokens":4,"seed":8,"n":)", n, R"(,"prompt":)", prompt, "}"));
    EXPECT_EQ(answer.status, 200) << answer.body;
    std::vector<std::string> result;
    const json body = json::parse(answer.body);
    for (const json& choice : body["choices"]) {
      EXPECT_EQ(choice["index"], result.size());
      result.push_back(choice["text"]);
    }
    return result;
  };
  using testing::ElementsAre;
  EXPECT_THAT(texts("[97,98,99]", 1), ElementsAre(FakeText(8, 3, 4)));
  EXPECT_THAT(texts(R"(["a","bcd"])", 1), ElementsAre(FakeText(8, 1, 4), FakeText(8, 3, 4)));
  EXPECT_THAT(texts("[[97],[98,99]]", 2),
              ElementsAre(FakeText(8, 1, 4), FakeText(ContinuationSeed(8, 1), 1, 4),
                          FakeText(8, 2, 4), FakeText(ContinuationSeed(8, 1), 2, 4)));
}

TEST_F(HttpServerTest, CompletionDefaultsToSixteenTokens) {
  Start();
  const HttpAnswer answer = Post("/v1/completions", R"({"prompt":"x"})");
  EXPECT_EQ(json::parse(answer.body)["usage"]["completion_tokens"], 16);
}

TEST_F(HttpServerTest, ChatInOnePiece) {
  Start();
  const HttpAnswer answer = Post("/v1/chat/completions", R"({"messages":[
      {"role":"system","content":"be brief"},
      {"role":"user","content":[{"type":"text","text":"hi "},{"type":"text","text":"you"}]}],
      "max_completion_tokens":3,"seed":1})");
  ASSERT_EQ(answer.status, 200) << answer.body;
  const json body = json::parse(answer.body);
  EXPECT_EQ(body["object"], "chat.completion");
  EXPECT_EQ(body["choices"][0]["message"]["role"], "assistant");
  const std::string rendered =
      R"([{"role":"system","content":"be brief"},{"role":"user","content":"hi you"}]>)";
  EXPECT_EQ(body["choices"][0]["message"]["content"],
            FakeText(1, static_cast<uint32_t>(rendered.size()), 3));
}

TEST_F(HttpServerTest, StreamsEventsAndDone) {
  Start(absl::Milliseconds(2));
  const HttpAnswer answer = Post("/v1/chat/completions", R"({"messages":[
      {"role":"user","content":"q"}],"max_tokens":5,"seed":1,"stream":true,
      "stream_options":{"include_usage":true},"return_token_ids":true})");
  ASSERT_EQ(answer.status, 200) << answer.body;
  EXPECT_THAT(answer.Field("content-type"), HasSubstr("text/event-stream"));
  EXPECT_TRUE(answer.complete);
  std::vector<std::string> events = Events(answer);
  EXPECT_EQ(events.back(), "[DONE]");
  events.pop_back();
  const json usage = json::parse(events.back());
  EXPECT_TRUE(usage["choices"].empty());
  EXPECT_EQ(usage["usage"]["completion_tokens"], 5);
  events.pop_back();
  std::string text;
  size_t num_tokens = 0;
  for (size_t i = 0; i < events.size(); ++i) {
    const json event = json::parse(events[i]);
    EXPECT_EQ(event["object"], "chat.completion.chunk");
    EXPECT_TRUE(event["usage"].is_null());
    const json& choice = event["choices"][0];
    if (i == 0) {
      EXPECT_EQ(choice["delta"]["role"], "assistant");
    }
    if (choice["delta"].contains("content")) {
      text += choice["delta"]["content"].get<std::string>();
    }
    if (choice.contains("token_ids")) num_tokens += choice["token_ids"].size();
    const bool last = i + 1 == events.size();
    EXPECT_EQ(choice["finish_reason"], last ? json("length") : json(nullptr));
  }
  EXPECT_EQ(num_tokens, 5u);
  EXPECT_EQ(text.size(), 5u);
}

TEST_F(HttpServerTest, StreamOfSeveralPromptsKeepsChoicesApart) {
  Start();
  const HttpAnswer answer = Post("/v1/completions", R"({"prompt":["a","bb"],"n":2,"seed":4,
      "max_tokens":6,"stream":true})");
  std::vector<std::string> texts(4);
  std::vector<std::string> events = Events(answer);
  EXPECT_EQ(events.back(), "[DONE]");
  events.pop_back();
  for (const std::string& event : events) {
    const json choice = json::parse(event)["choices"][0];
    texts[choice["index"].get<size_t>()] += choice["text"].get<std::string>();
  }
  EXPECT_EQ(texts[0], FakeText(4, 1, 6));
  EXPECT_EQ(texts[1], FakeText(ContinuationSeed(4, 1), 1, 6));
  EXPECT_EQ(texts[2], FakeText(4, 2, 6));
  EXPECT_EQ(texts[3], FakeText(ContinuationSeed(4, 1), 2, 6));
}

struct Bad {
  std::string path;
  std::string body;
  int status;
  std::string param;
  std::string message;
};

TEST_F(HttpServerTest, BadBodiesNameTheField) {
  Start();
  const std::string deep = std::string(100000, '[') + std::string(100000, ']');
  const std::string chat = "/v1/chat/completions";
  const std::string text = "/v1/completions";
  const std::vector<Bad> cases = {
      {text, "{", 400, "null", "not valid JSON"},
      {text, "[]", 400, "null", "must be a JSON object"},
      {text, R"({"prompt":"x"} trailing)", 400, "null", "not valid JSON"},
      {text, R"({"prompt":"x","temperature":1e400})", 400, "null", "not valid JSON"},
      {text, R"({"prompt":)" + deep + "}", 400, "null", "not valid JSON"},
      {text, R"({"prompt":"x","prompt":"y"})", 400, "prompt", "given twice"},
      {text, R"({"prompt":"x","temperature":"hot"})", 400, "temperature", "must be a number"},
      {text, R"({"prompt":"x","temperature":2.5})", 400, "temperature",
       "temperature: 2.5 is not within 0 and 2"},
      {text, R"({"prompt":"x","presence_penalty":3})", 400, "presence_penalty", "-2 and 2"},
      {text, R"({"prompt":"x","logit_bias":{"257":1}})", 400, "logit_bias", "outside"},
      {text, R"({"prompt":"x","repetition_penalty":0})", 400, "repetition_penalty", "0.01 and 10"},
      {text, R"({"prompt":"x","min_tokens":4,"max_tokens":3})", 400, "min_tokens",
       "4 is not within 0 and 3"},
      {text, R"({"prompt":"x","best_of":17})", 400, "best_of", "not within 1 and 16"},
      {text, R"({"prompt":"x","priority":101})", 400, "priority", "-100 and 100"},
      {text, R"({"prompt":"x","cache_salt":"a b"})", 400, "cache_salt", "printable"},
      {text, R"({"prompt":"x","top_p":0})", 400, "top_p", "greater than 0"},
      {text, R"({"prompt":"x","n":0})", 400, "n", "not within 1 and 16"},
      {text, R"({"prompt":"x","n":9223372036854775808})", 400, "n", "not within 1 and 16"},
      {text, R"({"prompt":"x","max_tokens":-1})", 400, "max_tokens", "-1 is not within"},
      {text, R"({"prompt":"x","max_tokens":1.5})", 400, "max_tokens", "must be an integer"},
      {text, R"({"prompt":"x","max_tokens":0,"echo":true,"logprobs":1})", 400, "max_tokens",
       "0 is not within 1 and"},
      {text, R"({"prompt":"x","prompt_logprobs":21})", 400, "prompt_logprobs", "0 and 20"},
      {text, R"({"prompt":"x","best_of":2,"n":3})", 400, "best_of", "2 is not within 3 and 16"},
      {text, R"({"prompt":"x","max_completion_tokens":600})", 400, "max_completion_tokens",
       "exceed the context of 512 tokens"},
      {text, R"({"prompt":"x","stop":[1]})", 400, "stop", "is not a string"},
      {text, R"({"prompt":"x","stop_token_ids":[900]})", 400, "stop_token_ids", "outside"},
      {text, R"({"prompt":[-1]})", 400, "prompt", "is not a token id"},
      {text, R"({"prompt":[999]})", 400, "prompt", "outside the vocabulary of 257"},
      {text, R"({"prompt":[]})", 400, "prompt", "is empty"},
      {text, R"({"prompt":""})", 400, "prompt", "is empty"},
      {text, R"({})", 400, "prompt", "is missing"},
      {text, R"({"prompt":"x","model":"other"})", 404, "model", "'other' is not served"},
      {text, R"({"prompt":"x","stream_options":{}})", 400, "stream_options", "together with"},
      {text, R"({"prompt":"x","logprobs":21})", 400, "logprobs", "21 is not within 0 and 20"},
      {text, R"({"prompt":"x","suffix":"y"})", 400, "suffix", "not supported"},
      {chat, R"({"messages":[{"role":"user","content":"x"}],"logprobs":true,"top_logprobs":21})",
       400, "top_logprobs", "top_logprobs: 21 is not within 0 and 20"},
      {chat, R"({"messages":[]})", 400, "messages", "non-empty"},
      {chat, R"({"messages":[{"content":"x"}]})", 400, "messages", "needs a role"},
      {chat, R"({"messages":[{"role":"user","content":[{"type":"image_url"}]}]})", 400, "messages",
       "image_url is not supported"},
      {chat, R"({"messages":[{"role":"user","content":"x"}],"tools":[{"type":"function"}]})", 400,
       "tools", "not supported"},
      {chat, R"({"messages":[{"role":"user","content":"x"}],"max_tokens":600})", 400, "max_tokens",
       "exceed the context"},
      {chat, R"({"messages":[{"role":"user","content":")" + std::string(600, 'x') + "\"}]}", 400,
       "messages", "do not fit"},
      {"/tokenize", "{}", 400, "prompt", "is missing"},
      {"/detokenize", R"({"tokens":[99999]})", 400, "tokens", ""},
  };
  for (const Bad& bad : cases) {
    const HttpAnswer answer = Post(bad.path, bad.body);
    EXPECT_EQ(answer.status, bad.status) << bad.body.substr(0, 100) << answer.body;
    EXPECT_EQ(Error(answer, "param"), bad.param) << bad.body.substr(0, 100) << answer.body;
    EXPECT_THAT(Error(answer, "message"), HasSubstr(bad.message));
    EXPECT_THAT(answer.body, Not(HasSubstr("sampling.")));
    EXPECT_FALSE(answer.Field("x-request-id").empty());
  }
  EXPECT_EQ(driver().num_alive_requests(), 0u);
}

// Not only parsed: what the workers are told.
TEST_F(HttpServerTest, SamplingFieldsReachTheWorkers) {
  Start();
  const HttpAnswer answer = Post("/v1/completions", R"({"prompt":"x","max_tokens":8,
      "typical_p":0.5,"repetition_penalty":1.25,"presence_penalty":-0.5,"frequency_penalty":0.75,
      "logit_bias":{"7":-2.5},"min_tokens":4,"stop_token_ids":[9],"logprobs":2})");
  ASSERT_EQ(answer.status, 200) << answer.body;
  const v1::SequenceSampling sampling = cluster_->workers_[0]->last_sampling();
  EXPECT_EQ(sampling.typical_p(), 0.5f);
  EXPECT_EQ(sampling.repetition_penalty(), 1.25f);
  EXPECT_EQ(sampling.presence_penalty(), -0.5f);
  EXPECT_EQ(sampling.frequency_penalty(), 0.75f);
  EXPECT_THAT(sampling.bias_ids(), testing::ElementsAre(7));
  EXPECT_THAT(sampling.biases(), testing::ElementsAre(-2.5f));
  EXPECT_EQ(sampling.min_new_tokens(), 4u);
  EXPECT_THAT(sampling.late_ids(), testing::ElementsAre(9, ByteTokenizer::kEos));
  EXPECT_EQ(sampling.logprobs(), 3u);
  const json body = json::parse(answer.body);
  EXPECT_TRUE(body["choices"][0]["logprobs"].is_object());
  EXPECT_EQ(body["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
}

TEST_F(HttpServerTest, TheTenantIsAHeader) {
  Start();
  const std::string body = R"({"prompt":"x","max_tokens":2,"user":"someone else"})";
  EXPECT_EQ(Fetch(address(), "POST", "/v1/completions", body, "X-Essor-Tenant: blue\r\n").status,
            200);
  const HttpAnswer bad =
      Fetch(address(), "POST", "/v1/completions", body, "X-Essor-Tenant: a b\r\n");
  EXPECT_EQ(bad.status, 400);
  EXPECT_EQ(Error(bad, "param"), "x-essor-tenant");
  EXPECT_THAT(Error(bad, "message"), HasSubstr("x-essor-tenant: only printable"));
}

TEST_F(HttpServerTest, ErrorCodesThatClientsLookAt) {
  Start();
  const HttpAnswer length = Post("/v1/completions", R"({"prompt":"x","max_tokens":600})");
  EXPECT_EQ(Error(length, "code"), "context_length_exceeded");
  EXPECT_EQ(Error(length, "type"), "invalid_request_error");
  const HttpAnswer model = Post("/v1/completions", R"({"prompt":"x","model":"gpt"})");
  EXPECT_EQ(Error(model, "code"), "model_not_found");
}

TEST_F(HttpServerTest, PathsAndMethods) {
  Start();
  EXPECT_EQ(Fetch(address(), "GET", "/v1/nothing").status, 404);
  const HttpAnswer wrong = Fetch(address(), "GET", "/v1/completions");
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.Field("Allow"), "POST");
  EXPECT_EQ(Fetch(address(), "POST", "/v1/models", "{}").status, 405);
  const json models = json::parse(Fetch(address(), "GET", "/v1/models").body);
  EXPECT_EQ(models["data"][0]["id"], "fake-model");
  EXPECT_EQ(json::parse(Fetch(address(), "GET", "/v1/models/fake-model").body)["object"], "model");
  EXPECT_EQ(json::parse(Fetch(address(), "GET", "/v1/models/fake%2Dmodel").body)["id"],
            "fake-model");
  EXPECT_EQ(Fetch(address(), "GET", "/v1/models/other").status, 404);
  EXPECT_EQ(Fetch(address(), "GET", "/livez").status, 200);
  EXPECT_EQ(Fetch(address(), "GET", "/readyz?verbose").status, 200);
  EXPECT_TRUE(json::accept(Fetch(address(), "GET", "/openapi.json").body));
  EXPECT_TRUE(json::parse(Fetch(address(), "GET", "/version").body).contains("version"));
  const json tokens =
      json::parse(Post("/tokenize", R"({"prompt":"ab","add_special_tokens":false})").body);
  EXPECT_EQ(tokens["tokens"], json({97, 98}));
  EXPECT_EQ(json::parse(Post("/detokenize", R"({"tokens":[97,98]})").body)["prompt"], "ab");
}

TEST_F(HttpServerTest, CallersRequestIdIsEchoedUnlessItIsOdd) {
  Start();
  EXPECT_EQ(Fetch(address(), "GET", "/livez", "", "X-Request-Id: abc-1\r\n").Field("x-request-id"),
            "abc-1");
  EXPECT_THAT(Fetch(address(), "GET", "/livez", "", "X-Request-Id: a b\r\n").Field("x-request-id"),
              HasSubstr("req-"));
}

TEST_F(HttpServerTest, TooLargeBodyIsRefusedFromItsHeader) {
  Start();
  RawHttp connection(address());
  connection.Send("POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Length: 67108865\r\n\r\n");
  const HttpAnswer answer = connection.Read();  // not one byte of the body was sent
  EXPECT_EQ(answer.status, 413);
  EXPECT_THAT(Error(answer, "message"), HasSubstr("67108864 bytes"));
}

TEST_F(HttpServerTest, MalformedHttpGetsAnAnswer) {
  Start();
  RawHttp nonsense(address());
  nonsense.Send("this is not http\r\n\r\n");
  EXPECT_EQ(nonsense.Read().status, 400);
  RawHttp header(address());
  header.Send("GET /livez HTTP/1.1\r\nHost: t\r\nX-Long: " + std::string(40000, 'x') + "\r\n\r\n");
  EXPECT_EQ(header.Read().status, 431);
  EXPECT_EQ(Fetch(address(), "POST", "/v1/completions", "{}", "Content-Encoding: gzip\r\n").status,
            415);
  RawHttp type(address());
  type.Send(
      "POST /tokenize HTTP/1.1\r\nHost: t\r\nContent-Type: text/plain\r\nContent-Length: "
      "2\r\n\r\n{}");
  EXPECT_EQ(type.Read().status, 400);
}

TEST_F(HttpServerTest, ConnectionServesRequestAfterRequest) {
  Start();
  RawHttp connection(address());
  for (int i = 0; i < 3; ++i) {
    const std::string body = R"({"prompt":"x","max_tokens":2,"stream":true})";
    connection.Send(absl::StrCat("POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Length: ",
                                 body.size(), "\r\n\r\n", body));
    const HttpAnswer answer = connection.Read();
    EXPECT_EQ(answer.status, 200);
    EXPECT_THAT(answer.body, HasSubstr("[DONE]"));
  }
}

// A client that hangs up frees everything at once, streamed or not.
TEST_F(HttpServerTest, HangUpCancelsWithinASecond) {
  Start(absl::Milliseconds(5));
  for (const char* stream : {"true", "false"}) {
    const std::string body =
        absl::StrCat(R"({"prompt":"x","max_tokens":500,"ignore_eos":true,"stream":)", stream, "}");
    RawHttp connection(address());
    connection.Send(absl::StrCat("POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Length: ",
                                 body.size(), "\r\n\r\n", body));
    ASSERT_TRUE(Eventually([&] { return driver().num_alive_requests() == 1; }));
    connection.Close();
    EXPECT_TRUE(Eventually([&] { return driver().num_alive_requests() == 0; }, absl::Seconds(1)));
    EXPECT_THAT(Fetch(address(), "GET", "/metrics").body,
                HasSubstr("\nessor_requests_running 0\n"));
  }
}

TEST_F(HttpServerTest, ShedRequestsAreToldWhenToRetry) {
  Coordinator::Options options = TestCluster::DefaultOptions(1);
  options.driver.scheduler.max_running_requests = 1;
  options.driver.scheduler.max_queued_requests = 0;
  Start(absl::Milliseconds(5), std::move(options));
  auto first = std::async(std::launch::async, [this] {
    return Post("/v1/completions", R"({"prompt":"x","max_tokens":100})");
  });
  ASSERT_TRUE(Eventually([&] { return driver().num_alive_requests() == 1; }));
  absl::SleepFor(absl::Milliseconds(50));
  const HttpAnswer shed = Post("/v1/completions", R"({"prompt":"x","stream":true})");
  EXPECT_EQ(shed.status, 429) << shed.body;
  EXPECT_EQ(shed.Field("Retry-After"), "1");
  EXPECT_EQ(Error(shed, "type"), "rate_limit_exceeded");
  EXPECT_EQ(first.get().status, 200);
}

// A worker lost in the middle of a stream: an error event, no [DONE], no finish reason.
TEST_F(HttpServerTest, CutStreamNeverLooksWhole) {
  Start(absl::Milliseconds(5));
  const std::string body = R"({"prompt":"x","max_tokens":500,"ignore_eos":true,"stream":true})";
  RawHttp connection(address());
  connection.Send(absl::StrCat("POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Length: ",
                               body.size(), "\r\n\r\n", body));
  ASSERT_TRUE(connection.ReadUntil("data: "));
  cluster_->workers_[0]->Kill();
  const HttpAnswer answer = connection.Read();
  EXPECT_THAT(answer.body, Not(HasSubstr("[DONE]")));
  EXPECT_THAT(answer.body, Not(HasSubstr("\"length\"")));
  const std::vector<std::string> events = Events(answer);
  const json error = json::parse(events.back());
  EXPECT_EQ(error["error"]["type"], "service_unavailable");
  EXPECT_THAT(error["error"]["message"].get<std::string>(), HasSubstr("a worker"));
  // New requests are told to come back, and readiness says why.
  const HttpAnswer refused = Post("/v1/completions", R"({"prompt":"x"})");
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.Field("Retry-After"), "1");
  const HttpAnswer ready = Fetch(address(), "GET", "/readyz");
  EXPECT_EQ(ready.status, 503);
  EXPECT_EQ(ready.body, "waiting for 1 of 1 workers\n");
}

TEST_F(HttpServerTest, DrainRefusesNewRequestsAndLetsStreamsFinish) {
  Start(absl::Milliseconds(5));
  auto running = std::async(std::launch::async, [this] {
    return Post("/v1/completions", R"({"prompt":"x","max_tokens":60,"stream":true})");
  });
  ASSERT_TRUE(Eventually([&] { return driver().num_alive_requests() == 1; }));
  cluster_->coordinator_->Drain();
  EXPECT_EQ(Fetch(address(), "GET", "/readyz").status, 503);
  EXPECT_EQ(Fetch(address(), "GET", "/livez").status, 200);
  const HttpAnswer refused = Post("/v1/completions", R"({"prompt":"x"})");
  EXPECT_EQ(refused.status, 503);
  EXPECT_THAT(Error(refused, "message"), HasSubstr("draining"));
  EXPECT_FALSE(refused.Field("Retry-After").empty());
  EXPECT_THAT(running.get().body, HasSubstr("[DONE]"));
  EXPECT_TRUE(Eventually([&] { return cluster_->coordinator_->drained(); }));
}

TEST_F(HttpServerTest, EndingTheServerEndsStreamsWithAnError) {
  Start(absl::Milliseconds(5));
  auto running = std::async(std::launch::async, [address = address()] {
    return Fetch(address, "POST", "/v1/completions",
                 R"({"prompt":"x","max_tokens":500,"ignore_eos":true,"stream":true})");
  });
  ASSERT_TRUE(Eventually([&] { return driver().num_alive_requests() == 1; }));
  absl::SleepFor(absl::Milliseconds(50));
  cluster_->coordinator_->AbortRequests();
  const HttpAnswer answer = running.get();
  EXPECT_THAT(answer.body, HasSubstr("shutting down"));
  EXPECT_THAT(answer.body, Not(HasSubstr("[DONE]")));
}

TEST_F(HttpServerTest, MetricsHaveHelpAndCount) {
  Start();
  Post("/v1/completions", R"({"prompt":"hello","max_tokens":7})");
  Post("/v1/completions", R"({"prompt":"hello","max_tokens":0})");
  const HttpAnswer answer = Fetch(address(), "GET", "/metrics");
  EXPECT_THAT(answer.Field("content-type"), HasSubstr("version=0.0.4"));
  for (const char* name : {"essor_requests_running", "essor_requests_waiting", "essor_epoch",
                           "essor_generated_tokens_total"}) {
    EXPECT_THAT(answer.body, HasSubstr(absl::StrCat("# HELP ", name, " ")));
  }
  EXPECT_THAT(answer.body, HasSubstr("\nessor_generated_tokens_total 7\n"));
  EXPECT_THAT(answer.body, HasSubstr("\nessor_prompt_tokens_total 5\n"));
  EXPECT_THAT(answer.body, HasSubstr("\nessor_epoch 1\n"));
  EXPECT_THAT(answer.body, HasSubstr("\nessor_ready 1\n"));
}

}  // namespace
}  // namespace essor::coordinator
