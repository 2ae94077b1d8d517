// tokenizer.json files whose vocabulary is plain text; tokenizer_golden_test.cc has trained ones.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/tokenizer/byte_fallback.h"
#include "model/tokenizer/tokenizer.h"

namespace essor::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Json = nlohmann::json;

Json Sequence(const char* key, const Json& steps) { return {{"type", "Sequence"}, {key, steps}}; }

Json ReplaceBlank() {
  return {{"type", "Replace"}, {"pattern", {{"String", "\u2581"}}}, {"content", " "}};
}

Json Metaspace(const char* scheme, bool split) {
  return {{"type", "Metaspace"},
          {"replacement", "\u2581"},
          {"prepend_scheme", scheme},
          {"split", split}};
}

// As Llama 2: 0 <unk>, 1 <s>, then characters, merges, and the two bytes of U+00E9.
Json MakeBpe() {
  return {
      {"model",
       {{"type", "BPE"},
        {"unk_token", "<unk>"},
        {"fuse_unk", true},
        {"byte_fallback", true},
        {"vocab",
         {{"<unk>", 0},
          {"<s>", 1},
          {"\u2581", 2},
          {"a", 3},
          {"b", 4},
          {"ab", 5},
          {"\u2581ab", 6},
          {"<0xC3>", 7},
          {"<0xA9>", 8}}},
        {"merges", {"a b", "\u2581 ab"}}}},
      {"added_tokens",
       Json::array({{{"id", 1}, {"content", "<s>"}, {"special", true}, {"normalized", false}}})},
      {"pre_tokenizer", Metaspace("first", false)},
      {"decoder",
       Sequence("decoders", {ReplaceBlank(),
                             {{"type", "ByteFallback"}},
                             {{"type", "Fuse"}},
                             {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}})}};
}

Json MakeUnigram() {
  Json json = MakeBpe();
  json["model"] = {{"type", "Unigram"},
                   {"unk_id", 0},
                   {"vocab", Json::array({Json::array({"<unk>", 0.0}), Json::array({"<s>", 0.0}),
                                          Json::array({"\u2581", -3.0}), Json::array({"a", -3.0}),
                                          Json::array({"b", -3.0}), Json::array({"ab", -4.0}),
                                          Json::array({"\u2581a", -2.5})})}};
  json["pre_tokenizer"] = Metaspace("always", true);
  json["decoder"] = Metaspace("always", true);
  return json;
}

std::unique_ptr<Tokenizer> Make(const Json& json) {
  auto tokenizer = Tokenizer::FromTokenizerJson(json.dump());
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

std::vector<TokenId> Ids(const Tokenizer& tokenizer, std::string_view text,
                         bool parse_special = false) {
  const auto ids = tokenizer.Encode(text, {.parse_special = parse_special});
  EXPECT_TRUE(ids.ok()) << ids.status();
  return *ids;
}

TEST(PlainTextTest, MetaspacePrependsAsItsSchemeSays) {
  Json json = MakeBpe();
  EXPECT_THAT(Ids(*Make(json), "ab<s>ab ab", true), ElementsAre(6, 1, 5, 6));
  EXPECT_THAT(Ids(*Make(json), " ab"), ElementsAre(6));  // there is a blank already
  json["pre_tokenizer"] = Metaspace("always", false);
  EXPECT_THAT(Ids(*Make(json), "ab<s>ab", true), ElementsAre(6, 1, 6));
  json["pre_tokenizer"] = Metaspace("never", false);
  EXPECT_THAT(Ids(*Make(json), "ab<s>ab", true), ElementsAre(5, 1, 5));
  json["pre_tokenizer"] = {
      {"type", "Metaspace"}, {"replacement", "\u2581"}, {"add_prefix_space", false}};
  EXPECT_THAT(Ids(*Make(json), "ab ab"), ElementsAre(5, 6));
}

TEST(PlainTextTest, UnknownCharactersFallBackToBytesWhereAllAreThere) {
  const auto tokenizer = Make(MakeBpe());
  EXPECT_THAT(Ids(*tokenizer, "a\u00e9b"), ElementsAre(2, 3, 7, 8, 4));
  EXPECT_THAT(Ids(*tokenizer, "axyb"), ElementsAre(2, 3, 0, 4));
  Json json = MakeBpe();
  json["model"]["fuse_unk"] = false;
  EXPECT_THAT(Ids(*Make(json), "axyb"), ElementsAre(2, 3, 0, 0, 4));
  json["model"]["unk_token"] = nullptr;
  EXPECT_THAT(Ids(*Make(json), "axyb"), ElementsAre(6));  // dropped
}

TEST(PlainTextTest, WordsMayBeCutApartOnlyWhereNoTokenReachesOver) {
  Json json = MakeBpe();
  EXPECT_THAT(Ids(*Make(json), "ab  ab"), ElementsAre(6, 2, 6));
  // With a token that ends in a blank the text must stay whole.
  json["model"]["vocab"]["ab\u2581"] = 9;
  json["model"]["merges"] = {"a b", "ab \u2581"};
  EXPECT_THAT(Ids(*Make(json), "ab ab"), ElementsAre(2, 9, 5));
  // And where a whole text that is a token is taken as such.
  json = MakeBpe();
  json["model"]["vocab"]["\u2581b\u2581b"] = 9;
  json["model"]["ignore_merges"] = true;
  EXPECT_THAT(Ids(*Make(json), "b b"), ElementsAre(9));
  EXPECT_THAT(Ids(*Make(json), "b b b"), ElementsAre(2, 4, 2, 4, 2, 4));
}

TEST(PlainTextTest, DecodersUndoWhatEncodingDid) {
  Json json = MakeBpe();
  const auto decode = [&](const std::vector<TokenId>& ids) {
    return *Make(json)->Decode(ids, false);
  };
  EXPECT_EQ(decode({6, 6, 7, 8}), "ab ab\u00e9");
  EXPECT_EQ(decode({2, 6}), " ab");  // one blank of two
  EXPECT_EQ(decode({1, 6}), "<s> ab");
  EXPECT_EQ(decode({3, 7, 4}), "a\uFFFDb");
  json["decoder"] = Metaspace("first", false);
  EXPECT_EQ(decode({2, 6}), " ab");
  EXPECT_EQ(decode({6, 7}), "ab<0xC3>");  // no ByteFallback: text
  json["decoder"] = Metaspace("never", false);
  EXPECT_EQ(decode({2, 6}), "  ab");
}

TEST(PlainTextTest, UnigramTakesTheBestSum) {
  const auto tokenizer = Make(MakeUnigram());
  EXPECT_THAT(Ids(*tokenizer, "ab"), ElementsAre(6, 4));  // -5.5 against -7
  EXPECT_THAT(Ids(*tokenizer, "xab"), ElementsAre(2, 0, 5));
  EXPECT_THAT(Ids(*tokenizer, "a a"), ElementsAre(6, 6));
}

TEST(PlainTextTest, UnigramDoesNotFindSpecialTokensInText) {
  const auto tokenizer = Make(MakeUnigram());
  EXPECT_THAT(Ids(*tokenizer, "<s>a", true), ElementsAre(1, 6));
  EXPECT_THAT(Ids(*tokenizer, "<s>a"), ElementsAre(2, 0, 3));
}

void ExpectRefused(Json json, const std::function<void(Json&)>& change,
                   const std::string& message) {
  change(json);
  const absl::Status status = Tokenizer::FromTokenizerJson(json.dump()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << message;
  EXPECT_THAT(std::string(status.message()), HasSubstr("tokenizer.json: " + message));
}

TEST(PlainTextTest, NamesWhatIsWrongWithModelsAndMetaspace) {
  const auto refuse = [](const std::string& message, const std::function<void(Json&)>& change) {
    ExpectRefused(MakeUnigram(), change, message);
  };
  refuse("model.vocab[1]: not a text with its score",
         [](Json& j) { j["model"]["vocab"][1] = Json::array({"<s>"}); });
  refuse("model.vocab[1]: \"<unk>\" is given twice",
         [](Json& j) { j["model"]["vocab"][1][0] = "<unk>"; });
  refuse("model.vocab: empty", [](Json& j) { j["model"]["vocab"] = Json::array(); });
  refuse("model.unk_id: missing", [](Json& j) { j["model"].erase("unk_id"); });
  refuse("model.unk_id: 7 is outside the vocabulary of 7",
         [](Json& j) { j["model"]["unk_id"] = 7; });
  refuse("token 2 has 1025 bytes",
         [](Json& j) { j["model"]["vocab"][2][0] = std::string(1025, 'a'); });
  refuse("pre_tokenizer.replacement: not one character",
         [](Json& j) { j["pre_tokenizer"]["replacement"] = "__"; });
  refuse("pre_tokenizer.prepend_scheme: \"last\" is not supported",
         [](Json& j) { j["pre_tokenizer"]["prepend_scheme"] = "last"; });
  // Two of them could put more and more before each piece.
  refuse("pre_tokenizer.pretokenizers[1]: a second Metaspace step is not supported", [](Json& j) {
    j["pre_tokenizer"] = {
        {"type", "Sequence"},
        {"pretokenizers", {Metaspace("always", false), Metaspace("never", true)}}};
  });
}

TEST(PlainTextTest, NamesUnsupportedDecoders) {
  const auto refuse = [](const std::string& message, const Json& decoder) {
    ExpectRefused(
        MakeBpe(), [&](Json& j) { j["decoder"] = decoder; }, message);
  };
  const Json strip = {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}};
  const Json fuse = {{"type", "Fuse"}};
  const Json replace = {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "b"}};
  refuse("decoder.decoders[16]: more than 16 replacements",
         {{"type", "Sequence"}, {"decoders", std::vector<Json>(17, replace)}});
  refuse("decoder: missing", nullptr);
  refuse("decoder.type: \"WordPiece\" is not supported", {{"type", "WordPiece"}});
  refuse("decoder: Strip is not supported in this place", strip);
  refuse("decoder.decoders[1]: Replace is not supported in this place",
         Sequence("decoders", {fuse, ReplaceBlank()}));
  refuse("decoder.decoders[1]: ByteFallback is not supported in this place",
         Sequence("decoders", {fuse, {{"type", "ByteFallback"}}}));
  for (const auto& [key, value] :
       {std::pair<const char*, Json>{"content", "x"}, {"start", 2}, {"stop", 1}}) {
    Json other = strip;
    other[key] = value;
    refuse("decoder.decoders[1]: only one blank at the start", Sequence("decoders", {fuse, other}));
  }
  refuse("decoder.pattern: only a String with text",
         {{"type", "Replace"}, {"pattern", {{"Regex", "a"}}}, {"content", ""}});
}

TEST(PlainTextTest, DecodersCannotInflateTheVocabularyWithoutBound) {
  ExpectRefused(
      MakeBpe(),
      [](Json& j) {
        j["decoder"] = {{"type", "Replace"},
                        {"pattern", {{"String", "a"}}},
                        {"content", std::string(70'000, 'x')}};
      },
      "token 3 decodes to more than 65536 bytes");
}

TEST(ByteFallbackTest, NamesBytes) {
  EXPECT_EQ(FallbackToken(10), "<0x0A>");
  EXPECT_EQ(ByteOfFallbackToken("<0xfF>"), 255);
  for (const char* text : {"", "<0x0>", "<0xG0>", "<0x0G>", "<0x000>", "<0x00)", "(0x00>"}) {
    EXPECT_EQ(ByteOfFallbackToken(text), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace essor::model
