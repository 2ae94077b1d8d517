// What HTTP clients are told beside the text: probabilities, prompts, the best of several, caching.
#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "coordinator/core/seed.h"
#include "coordinator/testing/http_fixture.h"

namespace essor::coordinator {
namespace {

using nlohmann::json;

using HttpLogprobsTest = HttpServerTest;

// The four arrays of a completion's logprobs, joined over the parts of a stream.
struct Arrays {
  void Add(const json& logprobs) {
    for (const char* key : {"tokens", "token_logprobs", "top_logprobs", "text_offset"}) {
      for (const json& value : logprobs[key]) arrays[key].push_back(value);
    }
  }
  json arrays = json::object();
};

// What `logprobs`: 1 tells of `text`, whose first `num_prompt_tokens` are an echoed prompt.
json ExpectedLogprobs(const std::string& text, size_t num_prompt_tokens) {
  Arrays expected;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto token = static_cast<TokenId>(text[i]);
    const bool in_prompt = i < num_prompt_tokens;
    const json logprob = in_prompt && i == 0 ? json(nullptr)
                         : in_prompt         ? json(-static_cast<double>(token))
                                             : json(FakeLogprob(token));
    const json top = in_prompt && i == 0 ? json(nullptr) : json{{"A", -1}};
    expected.Add({{"tokens", {text.substr(i, 1)}},
                  {"token_logprobs", json::array({logprob})},
                  {"top_logprobs", json::array({top})},
                  {"text_offset", {i}}});
  }
  return expected.arrays;
}

TEST_F(HttpLogprobsTest, CompletionLogprobsWholeAndStreamed) {
  Start(absl::Milliseconds(2));
  for (const bool echo : {false, true}) {
    const std::string body =
        absl::StrCat(R"({"prompt":"hello","max_tokens":6,"seed":3,"n":2,"logprobs":1,"echo":)",
                     echo ? "true" : "false");
    std::vector<std::string> texts;
    for (uint32_t i = 0; i < 2; ++i) {
      texts.push_back((echo ? "hello" : "") + FakeText(ContinuationSeed(3, i), 5, 6));
    }
    const json whole = json::parse(Post("/v1/completions", body + "}").body);
    std::vector<Arrays> streamed(2);
    std::vector<std::string> streamed_texts(2);
    std::vector<std::string> events = Events(Post("/v1/completions", body + R"(,"stream":true})"));
    events.pop_back();
    for (const std::string& event : events) {
      const json choice = json::parse(event)["choices"][0];
      const auto index = choice["index"].get<size_t>();
      streamed_texts[index] += choice["text"].get<std::string>();
      streamed[index].Add(choice["logprobs"]);
    }
    for (size_t i = 0; i < 2; ++i) {
      const json expected = ExpectedLogprobs(texts[i], echo ? 5 : 0);
      EXPECT_EQ(whole["choices"][i]["text"], texts[i]);
      EXPECT_EQ(whole["choices"][i]["logprobs"], expected);
      EXPECT_EQ(streamed_texts[i], texts[i]);
      EXPECT_EQ(streamed[i].arrays, expected);
    }
  }
}

TEST_F(HttpLogprobsTest, ChatLogprobsWholeAndStreamed) {
  Start(absl::Milliseconds(2));
  const std::string body = R"({"messages":[{"role":"user","content":"q"}],"max_tokens":5,"seed":1,
      "logprobs":true,"top_logprobs":2)";
  const json whole = json::parse(Post("/v1/chat/completions", body + "}").body)["choices"][0];
  const std::string text = whole["message"]["content"];
  ASSERT_EQ(text.size(), 5u);
  json expected = json::array();
  for (const char byte : text) {
    const auto token = static_cast<TokenId>(byte);
    const json top = {{{"token", "A"}, {"logprob", -1}, {"bytes", {'A'}}},
                      {{"token", "B"}, {"logprob", -2}, {"bytes", {'B'}}}};
    expected.push_back({{"token", std::string(1, byte)},
                        {"logprob", FakeLogprob(token)},
                        {"bytes", {token}},
                        {"top_logprobs", top}});
  }
  EXPECT_EQ(whole["logprobs"]["content"], expected);
  json streamed = json::array();
  for (const std::string& event :
       Events(Post("/v1/chat/completions", body + R"(,"stream":true})"))) {
    if (event == "[DONE]") continue;
    const json logprobs = json::parse(event)["choices"][0]["logprobs"];
    if (logprobs.is_null()) continue;  // the role's event has no tokens
    for (const json& token : logprobs["content"]) streamed.push_back(token);
  }
  EXPECT_EQ(streamed, expected);
}

TEST_F(HttpLogprobsTest, LogprobsOfAStoppedTextAreThoseOfAllTokens) {
  Start();
  const std::string full = FakeText(3, 5, 12);
  const std::string stop = full.substr(6, 3);
  const json choice = json::parse(
      Post("/v1/completions",
           absl::StrCat(R"({"prompt":"hello","max_tokens":12,"seed":3,"logprobs":1,"stop":")", stop,
                        "\"}"))
          .body)["choices"][0];
  EXPECT_EQ(choice["text"], full.substr(0, full.find(stop)));
  EXPECT_EQ(choice["finish_reason"], "stop");
  EXPECT_EQ(choice["logprobs"], ExpectedLogprobs(full.substr(0, full.find(stop) + 3), 0));
}

TEST_F(HttpLogprobsTest, PromptLogprobsStandBesideTheChoice) {
  Start();
  const json answer =
      json::parse(Post("/v1/completions", R"({"prompt":"hi","max_tokens":2,"prompt_logprobs":1})")
                      .body)["choices"][0];
  EXPECT_EQ(answer["prompt_logprobs"], json::parse(R"([null,{
      "105":{"logprob":-105,"decoded_token":"i"},"65":{"logprob":-1,"decoded_token":"A"}}])"));
  EXPECT_TRUE(answer["logprobs"].is_null());
  EXPECT_EQ(answer["text"].get<std::string>().size(), 2u);  // no echo
  const json chat = json::parse(
      Post("/v1/chat/completions",
           R"({"messages":[{"role":"user","content":"q"}],"max_tokens":2,"prompt_logprobs":0})")
          .body);
  EXPECT_EQ(chat["prompt_logprobs"].size(), chat["usage"]["prompt_tokens"].get<size_t>());
}

TEST_F(HttpLogprobsTest, AnEchoAndPromptLogprobsMayAskForDifferentNumbers) {
  Start();
  for (const size_t logprobs : {0, 1, 2}) {
    const size_t prompt_logprobs = 2 - logprobs;
    const json choice =
        json::parse(Post("/v1/completions",
                         absl::StrCat(R"({"prompt":"hi","max_tokens":1,"echo":true,"logprobs":)",
                                      logprobs, R"(,"prompt_logprobs":)", prompt_logprobs, "}"))
                        .body)["choices"][0];
    // The token itself where no others are asked for.
    const size_t expected = std::max<size_t>(logprobs, 1);
    EXPECT_EQ(choice["logprobs"]["top_logprobs"][1].size(), expected) << choice;
    EXPECT_EQ(choice["logprobs"]["top_logprobs"][2].size(), expected);
    EXPECT_EQ(choice["prompt_logprobs"][1].size(), 1 + prompt_logprobs);  // and the token itself
  }
}

TEST_F(HttpLogprobsTest, BestOfAnswersWithTheMostProbable) {
  Start();
  const std::vector<std::string> expected = BestFakeTexts(3, 5, 6, 5);
  ASSERT_NE(expected[0], FakeText(3, 5, 6));  // so that something is chosen
  const std::string body = R"({"prompt":"hello","max_tokens":6,"seed":3,"best_of":5,"n":2)";
  const json answer = json::parse(Post("/v1/completions", body + "}").body);
  ASSERT_EQ(answer["choices"].size(), 2u) << answer;
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(answer["choices"][i]["index"], i);
    EXPECT_EQ(answer["choices"][i]["text"], expected[i]);
    EXPECT_EQ(answer["choices"][i]["finish_reason"], "length");
  }
  const HttpAnswer streamed = Post("/v1/completions", body + R"(,"stream":true})");
  EXPECT_EQ(streamed.status, 400);
  EXPECT_EQ(Error(streamed, "param"), "best_of");
}

TEST_F(HttpLogprobsTest, UsageTellsWhatWasCached) {
  Start();
  const std::string body = R"({"prompt":"A prompt of forty tokens, each one byte.","max_tokens":3)";
  const auto cached = [](const json& usage) {
    return usage["prompt_tokens_details"]["cached_tokens"];
  };
  const json first = json::parse(Post("/v1/completions", body + "}").body)["usage"];
  EXPECT_EQ(first["prompt_tokens"], 40);
  EXPECT_EQ(cached(first), 0);
  EXPECT_EQ(cached(json::parse(Post("/v1/completions", body + "}").body)["usage"]), 32);
  const std::vector<std::string> events = Events(
      Post("/v1/completions", body + R"(,"stream":true,"stream_options":{"include_usage":true}})"));
  ASSERT_GE(events.size(), 2u);
  EXPECT_EQ(cached(json::parse(events[events.size() - 2])["usage"]), 32);
}

}  // namespace
}  // namespace essor::coordinator
