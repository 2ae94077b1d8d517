// tiktoken.model and tokenizer_config.json made by hand; tokenizer_golden_test.cc has trained ones.
#include "model/tokenizer/tokenizer_tiktoken.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace essor::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string Line(const std::string& token, size_t rank) {
  return absl::StrCat(absl::Base64Escape(token), " ", rank, "\n");
}

// All bytes, and "ab", "abc", "xyz" (which no merge reaches).
std::string Ranks() {
  std::string file;
  for (size_t byte = 0; byte < 256; ++byte)
    file += Line(std::string(1, static_cast<char>(byte)), byte);
  return file + Line("ab", 256) + Line("abc", 257) + Line("xyz", 258);
}

constexpr const char* kConfig = R"({"added_tokens_decoder": {
    "259": {"content": "[BOS]", "special": true},
    "261": {"content": "<|im_end|>", "special": true}}, "bos_token": "[BOS]"})";

std::unique_ptr<Tokenizer> Make(const std::string& ranks, const std::string& config) {
  auto tokenizer = Tokenizer::FromTiktoken(ranks, *ParseTokenizerConfig(config));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

TEST(TiktokenTest, MergesByRankAndTakesWholeWords) {
  const auto tokenizer = Make(Ranks(), kConfig);
  EXPECT_THAT(*tokenizer->Encode("abcab", {}), ElementsAre(257, 256));
  EXPECT_THAT(*tokenizer->Encode("xyz", {}), ElementsAre(258));
  EXPECT_THAT(*tokenizer->Encode("xyzx", {}), ElementsAre('x', 'y', 'z', 'x'));
  // Nothing is merged over Han.
  EXPECT_THAT(*tokenizer->Encode("a\u4e2db", {}), ElementsAre('a', 0xe4, 0xb8, 0xad, 'b'));
  EXPECT_EQ(*tokenizer->Decode(std::vector<TokenId>{'a', 0xe4, 0xb8, 0xad, 257}, true),
            "a\u4e2dabc");
}

TEST(TiktokenTest, SpecialTokensStandBehindTheRanks) {
  const auto tokenizer = Make(Ranks(), kConfig);
  EXPECT_THAT(*tokenizer->Encode("[BOS]ab<|im_end|>", {.parse_special = true}),
              ElementsAre(259, 256, 261));
  EXPECT_EQ(tokenizer->Encode("[BOS]", {})->size(), 5u);
  EXPECT_EQ(tokenizer->vocab_size(), 259u + 256u);
  EXPECT_EQ(tokenizer->TokenBytes(260), "<|reserved_token_260|>");
  EXPECT_TRUE(tokenizer->IsSpecial(514));
}

TEST(TiktokenTest, LongTextsAreCutAsKimisOwnClassCutsThem) {
  const auto tokenizer = Make(Ranks(), kConfig);
  const auto has_bos = [&](const std::string& text) {
    const auto ids = *tokenizer->Encode(text, {.parse_special = true});
    return std::find(ids.begin(), ids.end(), 259u) != ids.end();
  };
  // The cut is before the 25 001st character of a run: inside the token, or not.
  EXPECT_FALSE(has_bos(std::string(24'998, 'x') + "[BOS]"));
  EXPECT_TRUE(has_bos(std::string(24'995, 'x') + "[BOS]"));
  EXPECT_TRUE(has_bos(std::string(25'000, 'x') + "[BOS]"));
  EXPECT_TRUE(has_bos(std::string(24'997, 'x') + " [BOS]"));
  EXPECT_FALSE(has_bos(std::string(49'998, 'x') + "[BOS]"));
  // And after 400 000 characters.
  std::string words;
  for (int i = 0; i < 199'999; ++i) words += "\u00e9 ";
  EXPECT_FALSE(has_bos(words + "[BOS]"));
  EXPECT_TRUE(has_bos(words + "xy[BOS]"));
}

TEST(TiktokenTest, GuardsHoldInEveryChunk) {
  const auto tokenizer = Make(Ranks(), kConfig);
  const std::string text = std::string(25'000, 'x') + "\uFDD0[BOS][BOS]";
  const auto ids = *tokenizer->Encode(text, {.parse_special = true, .guarded = true});
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 259u), 1);
  EXPECT_EQ(ids.back(), 259u);
}

TEST(TiktokenTest, BosOnlyWhenTheConfigSaysSo) {
  EXPECT_THAT(*Make(Ranks(), kConfig)->Encode("ab", {}), ElementsAre(256));
  std::string config = kConfig;
  config.back() = ',';
  EXPECT_THAT(*Make(Ranks(), config + "\"add_bos_token\": true}")->Encode("ab", {}),
              ElementsAre(259, 256));
}

TEST(TiktokenTest, ReadsOtherLineEndsAndEmptyLines) {
  std::string file = Ranks();
  for (size_t at = 0; (at = file.find('\n', at)) != std::string::npos; at += 3) {
    file.replace(at, 1, "\r\n\n");
  }
  EXPECT_THAT(*Make(file, "")->Encode("abc", {}), ElementsAre(257));
}

TEST(TiktokenTest, NamesWhatIsWrong) {
  const auto expect = [](const std::string& file, const std::string& message) {
    const absl::Status status = Tokenizer::FromTiktoken(file, {}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << message;
    EXPECT_THAT(std::string(status.message()), HasSubstr("tiktoken.model: " + message));
  };
  expect("YQ==\n", "line 1: not a token and its rank");
  expect("\n*** 1\n", "line 2: the token is not base64");
  expect(" 1\n", "line 1: the token is not base64");
  expect("YQ== x\n", "line 1: the rank is not a token id");
  expect("YQ== 99999999\n", "line 1: the rank is not a token id");
  expect("YQ== -1\n", "line 1: the rank is not a token id");
  expect(Line(std::string(600, 'a'), 0), "line 1: a token of 600 bytes; the limit is 512");
  expect(Ranks() + Line("ab", 259), "line 260: the token of line 257");
  expect(Ranks() + Line("abx", 258), "line 260: the rank of line 259");
  expect(Ranks() + Line("abx", 260), "260 tokens, but none of rank 259");
  expect(Line("a", 0), "tokens for 1 of the 256 single bytes");
  expect("", "tokens for 0 of the 256 single bytes");
  expect(std::string(kTiktokenBytesMax + 1, '\n'), "33554433 bytes; the limit is 33554432");
  TokenizerConfig config;
  config.added_tokens = {{.content = "x", .id = 5}};
  EXPECT_THAT(std::string(Tokenizer::FromTiktoken(Ranks(), config).status().message()),
              HasSubstr("names token 5 \"x\", which has a rank"));
}

TEST(TokenizerConfigTest, ReadsWhatVocabulariesNeed) {
  const auto config = ParseTokenizerConfig(R"({
      "tokenizer_class": "LlamaTokenizer", "legacy": true, "add_bos_token": true,
      "bos_token": {"content": "<s>"}, "eos_token": "</s>", "chat_template": "x",
      "added_tokens_decoder": {"10": {"content": "b", "lstrip": true}, "9": {"content": "a"}}})");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->bos_token, "<s>");
  EXPECT_EQ(config->eos_token, "</s>");
  EXPECT_TRUE(config->legacy);
  EXPECT_EQ(config->add_bos_token, true);
  EXPECT_EQ(config->add_eos_token, std::nullopt);
  ASSERT_EQ(config->added_tokens.size(), 2u);
  EXPECT_EQ(config->added_tokens[0].id, 9u);
  EXPECT_TRUE(config->added_tokens[1].lstrip);
}

TEST(TokenizerConfigTest, NamesTheFieldThatIsWrong) {
  const auto expect = [](const char* json, const std::string& message) {
    const absl::Status status = ParseTokenizerConfig(json).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << message;
    EXPECT_THAT(std::string(status.message()), HasSubstr("tokenizer_config.json: " + message));
  };
  expect("[]", "the document is not an object");
  expect("{", "");
  expect(R"({"legacy": 1})", "legacy: not a boolean");
  expect(R"({"bos_token": {}})", "bos_token.content: missing");
  expect(R"({"eos_token": 7})", "eos_token: not a string");
  expect(R"({"tokenizer_class": 7})", "tokenizer_class: not a string");
  expect(R"({"added_tokens_decoder": []})", "added_tokens_decoder: not an object");
  expect(R"({"added_tokens_decoder": {"1": 2}})", "added_tokens_decoder.1: not an object");
  expect(R"({"added_tokens_decoder": {"x": {}}})",
         "added_tokens_decoder.x: the key is not a token id");
  expect(R"({"added_tokens_decoder": {"1": {}}})", "added_tokens_decoder.1.content: missing");
}

}  // namespace
}  // namespace essor::model
