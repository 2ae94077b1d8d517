#include "coordinator/http/openai_choice.h"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "coordinator/http/openai_response.h"
#include "coordinator/testing/byte_tokenizer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace essor::coordinator {
namespace {

using nlohmann::json;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TokenOutput Tokens(const std::string& text, std::vector<TokenLogprob> logprobs) {
  TokenOutput output{.text = text, .logprobs = std::move(logprobs)};
  for (const char byte : text) output.token_ids.push_back(static_cast<unsigned char>(byte));
  return output;
}

class OpenAiChoiceTest : public testing::Test {
 protected:
  CompletionHead Head(bool chat) const {
    return {.chat = chat, .id = "x", .model = "m", .tokenizer = &tokenizer_};
  }
  json Body(bool chat, const Choice& choice, const AnswerOptions& options) const {
    return json::parse(
        CompletionBody(Head(chat), {choice},
                       {.prompt_tokens = 5, .generated_tokens = 2, .cached_tokens = 3}, options));
  }

  const ByteTokenizer tokenizer_;
};

TEST_F(OpenAiChoiceTest, CompletionsHaveParallelArrays) {
  const AnswerOptions options{.logprobs = true};
  Choice choice =
      PartOf(Tokens("ab", {{-0.5f, {{'a', -0.5f}, {'z', -1.25f}}}, {-2, {{'q', -1}}}}), options);
  const json logprobs = Body(false, choice, options)["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["tokens"], json({"a", "b"}));
  EXPECT_EQ(logprobs["token_logprobs"], json({-0.5, -2}));
  EXPECT_EQ(logprobs["top_logprobs"], json::parse(R"([{"a":-0.5,"z":-1.25},{"q":-1}])"));
  EXPECT_EQ(logprobs["text_offset"], json({0, 1}));
}

TEST_F(OpenAiChoiceTest, ChatHasAListOfTokens) {
  const AnswerOptions options{.logprobs = true};
  const Choice choice = PartOf(Tokens("a", {{-0.5f, {{'z', -0.25f}}}}), options);
  const json body = Body(true, choice, options);
  EXPECT_EQ(body["choices"][0]["logprobs"], json::parse(R"({"content":[{"token":"a",
      "logprob":-0.5,"bytes":[97],"top_logprobs":[{"token":"z","logprob":-0.25,"bytes":[122]}]}],
      "refusal":null})"));
  EXPECT_EQ(body["usage"]["prompt_tokens_details"]["cached_tokens"], 3);
}

TEST_F(OpenAiChoiceTest, WithoutLogprobsTheyAreNull) {
  const Choice choice = PartOf(Tokens("a", {{-0.5f, {}}}), {});
  for (bool chat : {false, true}) {
    EXPECT_TRUE(Body(chat, choice, {})["choices"][0]["logprobs"].is_null());
  }
}

// "é" in two tokens: neither is a text; together they are one character.
TEST_F(OpenAiChoiceTest, PiecesOfCharactersAreWrittenAsBytes) {
  const AnswerOptions options{.logprobs = true};
  const Choice choice = PartOf(Tokens("\xc3\xa9x", {{-1, {}}, {-1, {}}, {-1, {}}}), options);
  const json logprobs = Body(false, choice, options)["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["tokens"], json({"bytes:\\xc3", "bytes:\\xa9", "x"}));
  EXPECT_EQ(logprobs["text_offset"], json({0, 1, 1}));
  EXPECT_EQ(NumCharacters(choice.logprobs, &tokenizer_), 2u);
  const json content = Body(true, choice, options)["choices"][0]["logprobs"]["content"];
  EXPECT_EQ(content[1]["bytes"], json({0xa9}));
}

TEST_F(OpenAiChoiceTest, SpecialTokensHaveNoPlaceInTheText) {
  const AnswerOptions options{.logprobs = true, .echo = true};
  const PromptOutput prompt{.token_ids = {ByteTokenizer::kEos, 'h', ByteTokenizer::kEos, 'i'},
                            .text = "hi",
                            .logprobs = {{-1, {}}, {-1, {}}, {-1, {}}}};
  const Choice choice = PartOf(prompt, options);
  const json logprobs = Body(false, choice, options)["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["tokens"], json({"<eos>", "h", "<eos>", "i"}));
  EXPECT_EQ(logprobs["text_offset"], json({0, 0, 1, 1}));
  EXPECT_EQ(NumCharacters(choice.logprobs, &tokenizer_), 2u);
}

TEST_F(OpenAiChoiceTest, WhatIsNotFiniteIsWrittenAsANumber) {
  const AnswerOptions options{.logprobs = true};
  const Choice choice =
      PartOf(Tokens("ab", {{-kInfinity, {{'c', std::nanf("")}}}, {-0.1f, {}}}), options);
  const json logprobs = Body(false, choice, options)["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["token_logprobs"][0], -9999);
  EXPECT_EQ(logprobs["token_logprobs"][1], -0.1);  // not -0.10000000149
  EXPECT_EQ(logprobs["top_logprobs"][0]["c"], -9999);
}

TEST_F(OpenAiChoiceTest, TokensOfEqualTextAreOneKey) {
  const AnswerOptions options{.logprobs = true};
  const Choice choice = PartOf(Tokens("a", {{-1, {{900, -0.5f}, {901, -0.75f}}}}), options);
  const json top = Body(false, choice, options)["choices"][0]["logprobs"]["top_logprobs"][0];
  EXPECT_EQ(top, json::parse(R"({"":-0.5})"));  // both are unknown and have no text
}

TEST_F(OpenAiChoiceTest, AnEchoedPromptComesFirst) {
  const AnswerOptions options{.logprobs = true, .echo = true};
  const PromptOutput prompt{.token_ids = {'h', 'i'}, .text = "hi", .logprobs = {{-3, {{'o', -1}}}}};
  Choice choice;
  Append(PartOf(prompt, options), &choice);
  TokenOutput last = Tokens("!", {{-0.5f, {}}});
  last.finish_reason = FinishReason::kLength;
  Append(PartOf(std::move(last), options), &choice);
  AnswerOptions with_ids = options;
  with_ids.return_token_ids = true;
  const json answer = Body(false, choice, with_ids)["choices"][0];
  EXPECT_EQ(answer["text"], "hi!");
  EXPECT_EQ(answer["finish_reason"], "length");
  EXPECT_EQ(answer["token_ids"], json({'!'}));
  EXPECT_EQ(answer["logprobs"]["tokens"], json({"h", "i", "!"}));
  EXPECT_EQ(answer["logprobs"]["token_logprobs"], json::parse("[null,-3,-0.5]"));
  EXPECT_EQ(answer["logprobs"]["top_logprobs"], json::parse(R"([null,{"o":-1},{"!":-0.5}])"));
  EXPECT_EQ(answer["logprobs"]["text_offset"], json({0, 1, 2}));
  EXPECT_FALSE(answer.contains("prompt_logprobs"));
}

TEST_F(OpenAiChoiceTest, PromptLogprobsStandBesideTheChoice) {
  const AnswerOptions options{.prompt_logprobs = true};
  const PromptOutput prompt{
      .token_ids = {'h', 'i'}, .text = "hi", .logprobs = {{-3, {{'o', -1}, {'i', -3}}}}};
  const Choice choice = PartOf(prompt, options);
  const json expected = json::parse(R"([null,{"105":{"logprob":-3,"decoded_token":"i"},
      "111":{"logprob":-1,"decoded_token":"o"}}])");
  EXPECT_EQ(Body(false, choice, options)["choices"][0]["prompt_logprobs"], expected);
  EXPECT_EQ(Body(false, choice, options)["choices"][0]["text"], "");
  EXPECT_EQ(Body(true, choice, options)["prompt_logprobs"], expected);
}

// The offsets of a stream go on where the part before ended.
TEST_F(OpenAiChoiceTest, PartsOfAStreamHaveOffsetsOfTheWhole) {
  const AnswerOptions options{.logprobs = true};
  Choice part = PartOf(Tokens("cd", {{-1, {}}, {-2, {}}}), options);
  part.text_offset = 7;
  std::string event = ChunkEvent(Head(false), 1, part, options);
  ASSERT_EQ(event.rfind("data: ", 0), 0u);
  const json chunk = json::parse(event.substr(6));
  EXPECT_EQ(chunk["choices"][0]["index"], 1);
  EXPECT_EQ(chunk["choices"][0]["logprobs"]["text_offset"], json({7, 8}));
  event = ChunkEvent(Head(true), 0, part, options);
  EXPECT_EQ(json::parse(event.substr(6))["choices"][0]["logprobs"]["content"].size(), 2u);
}

TEST_F(OpenAiChoiceTest, WithoutATokenizerTokensAreNumbers) {
  const AnswerOptions options{.logprobs = true};
  const Choice choice = PartOf(Tokens("a", {{-1, {}}}), options);
  CompletionHead head = Head(false);
  head.tokenizer = nullptr;
  const json completion = json::parse(CompletionBody(head, {choice}, {}, options));
  EXPECT_EQ(completion["choices"][0]["logprobs"]["tokens"][0], "token_id:97");
  head.chat = true;
  const json chat = json::parse(CompletionBody(head, {choice}, {}, options));
  EXPECT_TRUE(chat["choices"][0]["logprobs"]["content"][0]["bytes"].is_null());
}

}  // namespace
}  // namespace essor::coordinator
