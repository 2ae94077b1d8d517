#include "model/tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "model/tokenizer/byte_level.h"
#include "model/tokenizer/guards.h"
#include "model/tokenizer/pipeline_tokenizer.h"
#include "model/tokenizer/tokenizer_gguf.h"
#include "model/tokenizer/utf8.h"

namespace essor::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Json = nlohmann::json;

// A tokenizer of all bytes (id = byte), a few merges and two added tokens.
Json MakeJson() {
  Json vocab;
  for (int byte = 0; byte < 256; ++byte) {
    std::string text;
    AppendUtf8(ByteLevelCharacter(static_cast<uint8_t>(byte)), &text);
    vocab[text] = byte;
  }
  vocab["ab"] = 256;
  vocab["abc"] = 257;
  vocab["aa"] = 258;
  vocab["aaaa"] = 259;
  const auto added = [](const char* content, int id, bool special) {
    return Json{{"id", id},        {"content", content},   {"special", special}, {"lstrip", false},
                {"rstrip", false}, {"single_word", false}, {"normalized", false}};
  };
  return {
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"a b", "ab c", "a a", "aa aa"}}}},
      {"added_tokens", {added("<|end|>", 260, true), added("<think>", 261, false)}},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
      {"post_processor", nullptr},
      {"decoder", {{"type", "ByteLevel"}}}};
}

std::unique_ptr<Tokenizer> Make(const Json& json = MakeJson()) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::FromTokenizerJson(json.dump());
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

std::vector<TokenId> Ids(const Tokenizer& tokenizer, std::string_view text,
                         const EncodeOptions& options = {}) {
  const absl::StatusOr<std::vector<TokenId>> ids = tokenizer.Encode(text, options);
  EXPECT_TRUE(ids.ok()) << ids.status();
  return *ids;
}

// Expects that the file, changed by `change`, is refused with a message that has `message`.
void ExpectRefused(const std::function<void(Json&)>& change, const std::string& message) {
  Json json = MakeJson();
  change(json);
  const absl::Status status = Tokenizer::FromTokenizerJson(json.dump()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << message;
  EXPECT_THAT(std::string(status.message()), HasSubstr(message));
}

TEST(TokenizerTest, MergesByRankAndFindsAddedTokens) {
  const auto tokenizer = Make();
  EXPECT_THAT(Ids(*tokenizer, "abcab"), ElementsAre(257, 256));
  EXPECT_THAT(Ids(*tokenizer, "x<think>ab"), ElementsAre('x', 261, 256));
  EXPECT_THAT(Ids(*tokenizer, ""), IsEmpty());
  EXPECT_EQ(tokenizer->vocab_size(), 262u);
  EXPECT_THAT(tokenizer->special_tokens(), ElementsAre(260));
  EXPECT_EQ(tokenizer->IdOf("<think>").value(), 261u);
  EXPECT_EQ(tokenizer->IdOf("nothing").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(tokenizer->TokenBytes(257), "abc");
  EXPECT_EQ(tokenizer->TokenBytes(0xe9), "\xe9");
  EXPECT_EQ(tokenizer->TokenBytes(1000), "");
}

TEST(TokenizerTest, SpecialTokensAreTextUnlessAskedFor) {
  const auto tokenizer = Make();
  EXPECT_THAT(Ids(*tokenizer, "<|end|>"), ElementsAre('<', '|', 'e', 'n', 'd', '|', '>'));
  EXPECT_THAT(Ids(*tokenizer, "a<|end|>b", {.parse_special = true}), ElementsAre('a', 260, 'b'));
}

TEST(TokenizerTest, GuardsKeepSpecialTokensTextAndLeaveNoTrace) {
  const auto tokenizer = Make();
  const EncodeOptions guarded{.parse_special = true, .guarded = true};
  const std::string guard = "\xef\xb7\x90";
  const std::string escape = "\xef\xb7\x91";
  EXPECT_THAT(Ids(*tokenizer, guard + "<|end|><|end|>", guarded),
              ElementsAre('<', '|', 'e', 'n', 'd', '|', '>', 260));
  EXPECT_THAT(Ids(*tokenizer, "<|" + guard + "end|>", guarded),
              ElementsAre('<', '|', 'e', 'n', 'd', '|', '>'));
  EXPECT_THAT(Ids(*tokenizer, "<|end|>" + guard + "<|end|>", guarded),
              ElementsAre(260, '<', '|', 'e', 'n', 'd', '|', '>'));
  // Guards do not cut words either, and an escaped one is text.
  EXPECT_THAT(Ids(*tokenizer, "a" + guard + "bc", guarded), ElementsAre(257));
  EXPECT_THAT(Ids(*tokenizer, escape + guard, guarded), ElementsAre(0xef, 0xb7, 0x90));
  EXPECT_THAT(Ids(*tokenizer, escape + escape, guarded), ElementsAre(0xef, 0xb7, 0x91));
  EXPECT_THAT(Ids(*tokenizer, "a" + escape, guarded), ElementsAre('a'));
}

TEST(TokenizerTest, RefusesTextThatIsNotUtf8) {
  const auto tokenizer = Make();
  for (const char* text : {"\xff", "a\xc3", "\xed\xa0\x80", "\xc0\x80", "\xf4\x90\x80\x80"}) {
    const absl::Status status = tokenizer->Encode(text, {}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(status.message(), "text is not valid UTF-8");
  }
}

TEST(TokenizerTest, LongWordsTakeNoQuadraticTime) {
  const auto tokenizer = Make();
  // 100 kB that are one piece. Quadratic merging would take 1e10 steps, beyond the test's timeout.
  EXPECT_EQ(Ids(*tokenizer, std::string(100'000, 'a')).size(), 25'000u);
  std::string mixed;
  for (int i = 0; i < 50'000; ++i) mixed += i % 3 == 0 ? "c" : "ab";
  const std::vector<TokenId> ids = Ids(*tokenizer, mixed);
  EXPECT_EQ(*tokenizer->Decode(ids, false), mixed);
  EXPECT_EQ(Ids(*tokenizer, std::string(100'000, ' ')).size(), 100'000u);
}

TEST(TokenizerTest, ShortAndLongWordsMergeAlike) {
  const auto tokenizer = Make();
  // 47 to 52 symbols are around the change of method.
  for (size_t n = 1; n < 60; ++n) {
    const std::vector<TokenId> ids = Ids(*tokenizer, std::string(n, 'a'));
    std::vector<TokenId> expected(n / 4, 259);
    if (n % 4 >= 2) expected.push_back(258);
    if (n % 2 == 1) expected.push_back('a');
    EXPECT_EQ(ids, expected) << n;
  }
}

TEST(TokenizerTest, MissingBytesAreDroppedOrUnknown) {
  Json json = MakeJson();
  json["model"]["vocab"].erase("x");
  EXPECT_THAT(Ids(*Make(json), "axxb"), ElementsAre(256));
  json["model"]["unk_token"] = "c";
  EXPECT_THAT(Ids(*Make(json), "axxb"), ElementsAre('a', 'c', 'c', 'b'));
  json["model"]["fuse_unk"] = true;
  EXPECT_THAT(Ids(*Make(json), "axxb"), ElementsAre('a', 'c', 'b'));
}

TEST(TokenizerTest, IgnoreMergesTakesWholePieces) {
  Json json = MakeJson();
  json["model"]["vocab"]["xyz"] = 262;
  EXPECT_THAT(Ids(*Make(json), "xyz"), ElementsAre('x', 'y', 'z'));
  json["model"]["ignore_merges"] = true;
  EXPECT_THAT(Ids(*Make(json), "xyz"), ElementsAre(262));
}

TEST(TokenizerTest, PostProcessorFramesTheText) {
  Json json = MakeJson();
  const Json special = {{"SpecialToken", {{"id", "<|end|>"}, {"type_id", 0}}}};
  json["post_processor"] = {
      {"type", "Sequence"},
      {"processors",
       {{{"type", "ByteLevel"}},
        {{"type", "TemplateProcessing"},
         {"single", {special, {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}, special}},
         {"special_tokens",
          {{"<|end|>", {{"id", "<|end|>"}, {"ids", {260}}, {"tokens", {"<|end|>"}}}}}}}}}};
  const auto tokenizer = Make(json);
  EXPECT_THAT(Ids(*tokenizer, "ab"), ElementsAre(260, 256, 260));
  EXPECT_THAT(Ids(*tokenizer, "ab", {.add_special = false}), ElementsAre(256));
  EXPECT_THAT(Ids(*tokenizer, ""), ElementsAre(260, 260));
}

TEST(TokenizerTest, UnknownPatternsAndBehavioursGoThroughTheRegularExpression) {
  Json json = MakeJson();
  const auto with_split = [&](const Json& pattern, const char* behavior, bool invert) {
    json["pre_tokenizer"] = {
        {"type", "Sequence"},
        {"pretokenizers",
         {{{"type", "Split"}, {"pattern", pattern}, {"behavior", behavior}, {"invert", invert}},
          {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
    return Ids(*Make(json), "ab-ab--c");
  };
  const Json dash = {{"String", "-"}};
  EXPECT_THAT(with_split(dash, "Isolated", false), ElementsAre(256, '-', 256, '-', '-', 'c'));
  EXPECT_THAT(with_split(dash, "Removed", false), ElementsAre(256, 256, 'c'));
  EXPECT_THAT(with_split({{"Regex", "[^-]+"}}, "Removed", true), ElementsAre(256, 256, 'c'));
  // "aa" exists as a token, so where the text is cut shows: a|aa|a.
  json["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"},
         {"pattern", {{"Regex", "x"}}},
         {"behavior", "MergedWithPrevious"},
         {"invert", false}},
        {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"use_regex", false}}}}};
  EXPECT_THAT(Ids(*Make(json), "axaab"), ElementsAre(' ', 'a', 'x', ' ', 'a', 256));
}

TEST(TokenizerTest, NormalisersRunBeforeEverythingElse) {
  Json json = MakeJson();
  json["normalizer"] = {{"type", "Sequence"},
                        {"normalizers",
                         {{{"type", "NFC"}},
                          {{"type", "Replace"}, {"pattern", {{"Regex", "x+"}}}, {"content", "ab"}},
                          {{"type", "Prepend"}, {"prepend", "c"}}}}};
  const auto tokenizer = Make(json);
  EXPECT_THAT(Ids(*tokenizer, "xxx"), ElementsAre('c', 256));
  EXPECT_THAT(Ids(*tokenizer, "e\xcc\x81"), ElementsAre('c', 0xc3, 0xa9));  // U+0301 composes
}

TEST(TokenizerTest, ManyThreadsGetTheSameIds) {
  const auto tokenizer = Make();
  const std::string text = "abc ab aaaa <think> abcabc xyzw qqqq";
  const std::vector<TokenId> expected = Ids(*tokenizer, text);
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 500; ++i) wrong[t] += *tokenizer->Encode(text, {}) != expected;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(wrong, ElementsAre(0, 0, 0, 0));
}

TEST(TokenizerJsonTest, RefusesMalformedDocuments) {
  for (const char* text : {"", "{", "[1,2", "{\"model\":}", "nul", "\xff{}"}) {
    const absl::Status status = Tokenizer::FromTokenizerJson(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr("tokenizer.json: ")) << text;
  }
  EXPECT_EQ(Tokenizer::FromTokenizerJson("[]").status().message(),
            "tokenizer.json: the document is not an object");
  EXPECT_EQ(Tokenizer::FromTokenizerJson("{}").status().message(),
            "tokenizer.json: model: missing");
  const std::string deep =
      "{\"normalizer\":" + std::string(5000, '[') + std::string(5000, ']') + "}";
  EXPECT_EQ(Tokenizer::FromTokenizerJson(deep).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(TokenizerJsonTest, NamesTheFieldThatIsWrong) {
  ExpectRefused([](Json& j) { j["model"]["type"] = "WordPiece"; }, "model.type: \"WordPiece\"");
  ExpectRefused([](Json& j) { j["model"]["type"] = "Unigram"; }, "Unigram with byte-level text");
  ExpectRefused([](Json& j) { j["model"]["vocab"] = 3; }, "model.vocab: not an object");
  ExpectRefused([](Json& j) { j["model"]["vocab"]["a"] = "x"; }, "model.vocab.a: not a token id");
  ExpectRefused([](Json& j) { j["model"]["vocab"]["a"] = -1; }, "model.vocab.a: not a token id");
  ExpectRefused([](Json& j) { j["model"]["vocab"]["a"] = 4000000000u; },
                "model.vocab.a: token id 4000000000; the largest supported is 16777215");
  ExpectRefused([](Json& j) { j["model"]["vocab"]["zz"] = 257; }, "id 257 already belongs to");
  ExpectRefused([](Json& j) { j["model"]["vocab"] = Json::object(); }, "model.vocab: empty");
  ExpectRefused([](Json& j) { j["model"].erase("merges"); }, "model.merges: missing");
  ExpectRefused([](Json& j) { j["model"]["merges"][1] = "abc"; },
                "model.merges[1]: \"abc\" is not two tokens");
  ExpectRefused([](Json& j) { j["model"]["merges"][2] = Json{"a"}; }, "model.merges[2]: neither");
  ExpectRefused([](Json& j) { j["model"]["merges"].push_back("q r"); },
                "merge 4 (\"q\" with \"r\"): \"qr\" is not in the vocabulary");
  ExpectRefused([](Json& j) { j["model"]["byte_fallback"] = true; }, "model.byte_fallback");
  ExpectRefused([](Json& j) { j["model"]["dropout"] = 0.1; }, "model.dropout: not supported");
  ExpectRefused([](Json& j) { j["model"]["end_of_word_suffix"] = "</w>"; },
                "model.end_of_word_suffix");
  ExpectRefused([](Json& j) { j["model"]["unk_token"] = "<unk>"; },
                "unk_token \"<unk>\" is not in the vocabulary");
  ExpectRefused([](Json& j) { j["added_tokens"][1].erase("id"); }, "added_tokens[1].id: missing");
  ExpectRefused([](Json& j) { j["added_tokens"][1]["content"] = std::string(513, 'x'); },
                "tokenizer.json: added token 261 has 513 bytes; the limit is 512");
  ExpectRefused(
      [](Json& j) {  // as the normaliser makes it
        j["normalizer"] = {{"type", "Prepend"}, {"prepend", std::string(300, 'y')}};
        j["added_tokens"][1]["content"] = std::string(300, 'x');
        j["added_tokens"][1]["normalized"] = true;
      },
      "tokenizer.json: added token 261 has 600 bytes; the limit is 512");
  ExpectRefused([](Json& j) { j["added_tokens"][0]["special"] = 1; },
                "added_tokens[0].special: not a boolean");
  ExpectRefused([](Json& j) { j["added_tokens"][0]["content"] = "ab"; },
                "added token \"ab\" has id 260, but \"ab\" is already token 256");
  ExpectRefused([](Json& j) { j["added_tokens"][1]["id"] = 260; }, "share id 260");
}

TEST(TokenizerJsonTest, NamesUnsupportedSteps) {
  ExpectRefused(
      [](Json& j) {
        j["normalizer"] = {{"type", "Lowercase"}};
      },
      "normalizer.type: \"Lowercase\" is not supported");
  ExpectRefused(
      [](Json& j) {
        j["pre_tokenizer"] = {{"type", "BertPreTokenizer"}};
      },
      "pre_tokenizer.type: \"BertPreTokenizer\" is not supported");
  // Without ByteLevel at the end the vocabulary is plain text.
  ExpectRefused([](Json& j) { j["pre_tokenizer"] = nullptr; },
                "decoder.type: \"ByteLevel\" is not supported");
  ExpectRefused(
      [](Json& j) {
        j["pre_tokenizer"] = {{"type", "Digits"}};
      },
      "decoder.type: \"ByteLevel\" is not supported");
  ExpectRefused(
      [](Json& j) {
        j["post_processor"] = {{"type", "BertProcessing"}};
      },
      "post_processor.type: \"BertProcessing\" is not supported");
  ExpectRefused(
      [](Json& j) {
        j["decoder"] = {{"type", "WordPiece"}};
      },
      "decoder.type: \"WordPiece\" is not supported");
  const auto with_regex = [](const char* regex) {
    return [regex](Json& j) {
      j["pre_tokenizer"] = {{"type", "Sequence"},
                            {"pretokenizers",
                             {{{"type", "Split"},
                               {"pattern", {{"Regex", regex}}},
                               {"behavior", "Isolated"},
                               {"invert", false}},
                              {{"type", "ByteLevel"}}}}};
    };
  };
  ExpectRefused(with_regex("("), "regular expression (");
  ExpectRefused(with_regex("[a-z&&[^b]]"), "class intersection (&&) is not supported");
  ExpectRefused(with_regex("\\h+"), "\\h in a regular expression is not supported");
  ExpectRefused(with_regex("a\\"), "ends in a backslash");
  ExpectRefused(with_regex(""), "Split with an empty pattern");
}

TEST(DetokenizerTest, HoldsBackUnfinishedCharacters) {
  const auto tokenizer = Make();
  IncrementalDetokenizer detokenizer(tokenizer.get());
  EXPECT_EQ(detokenizer.Push(0xf0), "");
  EXPECT_EQ(detokenizer.Push(0x9f), "");
  EXPECT_EQ(detokenizer.Push(0x98), "");
  EXPECT_EQ(detokenizer.Push(0x80), "\xf0\x9f\x98\x80");
  EXPECT_EQ(detokenizer.Push(0xe4), "");
  // Proven invalid by what follows: one replacement for the whole unfinished part.
  EXPECT_EQ(detokenizer.Push('x'), "\xef\xbf\xbdx");
  EXPECT_EQ(detokenizer.Push(0xff), "\xef\xbf\xbd");
  EXPECT_EQ(detokenizer.Push(260), "");  // special, skipped
  EXPECT_EQ(detokenizer.Push(0xc3), "");
  EXPECT_EQ(detokenizer.Finish(), "\xef\xbf\xbd");
  EXPECT_EQ(detokenizer.Finish(), "");
}

TEST(DetokenizerTest, DecodeRefusesIdsOutsideTheVocabulary) {
  const auto tokenizer = Make();
  const std::vector<TokenId> ids = {'a', 262};
  const absl::Status status = tokenizer->Decode(ids, true).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "token id 262 at position 1; the vocabulary has 262 tokens");
  EXPECT_EQ(*tokenizer->Decode(std::vector<TokenId>{'a', 260, 256}, false), "a<|end|>ab");
  EXPECT_EQ(*tokenizer->Decode(std::vector<TokenId>{'a', 260, 256}, true), "aab");
}

absl::flat_hash_map<std::string, GgufValue> MakeGguf() {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) {
    std::string text;
    AppendUtf8(ByteLevelCharacter(static_cast<uint8_t>(byte)), &text);
    tokens.push_back(text);
  }
  tokens.insert(tokens.end(), {"ab", "<|end|>", "<think>"});
  std::vector<int64_t> types(tokens.size(), 1);
  types[257] = 3;
  types[258] = 4;
  return {{"tokenizer.ggml.model", std::string("gpt2")},
          {"tokenizer.ggml.pre", std::string("smollm")},
          {"tokenizer.ggml.tokens", tokens},
          {"tokenizer.ggml.token_type", types},
          {"tokenizer.ggml.merges", std::vector<std::string>{"a b"}},
          {"tokenizer.ggml.bos_token_id", uint64_t{257}},
          {"tokenizer.ggml.eos_token_id", uint64_t{257}}};
}

TEST(GgufTokenizerTest, ReadsVocabularyAndKinds) {
  const auto definition = ParseGgufTokenizer(MakeGguf());
  ASSERT_TRUE(definition.ok()) << definition.status();
  const auto tokenizer = *PipelineTokenizer::Create(*definition);
  EXPECT_THAT(Ids(*tokenizer, "ab 12<think><|end|>", {.parse_special = true}),
              ElementsAre(256, ' ', '1', '2', 258, 257));
  EXPECT_TRUE(tokenizer->IsSpecial(257));
  EXPECT_FALSE(tokenizer->IsSpecial(258));
}

TEST(GgufTokenizerTest, AddsBosWhereTheFileOrTheModelSaysSo) {
  auto metadata = MakeGguf();
  metadata["tokenizer.ggml.add_bos_token"] = true;
  EXPECT_THAT(ParseGgufTokenizer(metadata)->prefix, ElementsAre(257));
  metadata["tokenizer.ggml.add_bos_token"] = false;
  EXPECT_THAT(ParseGgufTokenizer(metadata)->prefix, IsEmpty());
  metadata.erase("tokenizer.ggml.add_bos_token");
  metadata["tokenizer.ggml.pre"] = std::string("llama-bpe");
  EXPECT_THAT(ParseGgufTokenizer(metadata)->prefix, ElementsAre(257));
  EXPECT_TRUE(ParseGgufTokenizer(metadata)->model.ignore_merges);
}

TEST(GgufTokenizerTest, KnowsThePreTokenisers) {
  for (const char* pre : {"smollm", "llama-bpe", "qwen2", "gpt-2", "default", "deepseek-v3", "glm4",
                          "gpt-4o", "llama4", "minimax-m2", "kimi-k2"}) {
    auto metadata = MakeGguf();
    metadata["tokenizer.ggml.pre"] = std::string(pre);
    auto definition = ParseGgufTokenizer(metadata);
    ASSERT_TRUE(definition.ok()) << definition.status();
    const auto tokenizer = PipelineTokenizer::Create(*std::move(definition));
    ASSERT_TRUE(tokenizer.ok()) << pre << tokenizer.status();
    EXPECT_EQ(*(*tokenizer)->Decode(Ids(**tokenizer, "x 12, y", {.add_special = false}), false),
              "x 12, y");
  }
}

// A word of the vocabulary is one token where the models' own files say so, merges or not.
TEST(GgufTokenizerTest, WholeWordsNeedNoMergesWhereTheModelSaysSo) {
  for (const auto& [pre, whole] : {std::pair{"glm4", true}, {"kimi-k2", true}, {"gpt-4o", false}}) {
    auto metadata = MakeGguf();
    metadata["tokenizer.ggml.pre"] = std::string(pre);
    metadata["tokenizer.ggml.merges"] = std::vector<std::string>{};
    const auto tokenizer = *PipelineTokenizer::Create(*ParseGgufTokenizer(metadata));
    EXPECT_EQ(Ids(*tokenizer, "ab", {.add_special = false}).size(), whole ? 1u : 2u) << pre;
  }
}

TEST(GgufTokenizerTest, KimiIsReadAsFromItsOwnFile) {
  auto metadata = MakeGguf();
  metadata["tokenizer.ggml.pre"] = std::string("kimi-k2");
  const auto definition = ParseGgufTokenizer(metadata);
  ASSERT_TRUE(definition.ok()) << definition.status();
  ASSERT_TRUE(definition->chunks.has_value());
  EXPECT_EQ(definition->chunks->characters_max, 400'000u);
  EXPECT_EQ(definition->chunks->run_max, 25'000u);
  const auto* split = std::get_if<SplitStep>(&definition->pre_tokenizers.at(0));
  ASSERT_NE(split, nullptr);
  EXPECT_EQ(split->pattern, ScannerPattern(ScannerKind::kKimi));
}

TEST(GgufTokenizerTest, NamesTheKeyThatIsWrong) {
  const auto expect =
      [](const std::function<void(absl::flat_hash_map<std::string, GgufValue>&)>& change,
         const char* message) {
        auto metadata = MakeGguf();
        change(metadata);
        const absl::Status status = ParseGgufTokenizer(metadata).status();
        EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
        EXPECT_THAT(std::string(status.message()), HasSubstr(message));
      };
  expect([](auto& m) { m.erase("tokenizer.ggml.model"); },
         "GGUF key tokenizer.ggml.model: missing");
  expect([](auto& m) { m["tokenizer.ggml.model"] = std::string("llama"); },
         "\"llama\" is not supported");
  expect([](auto& m) { m["tokenizer.ggml.pre"] = std::string("martian"); },
         "GGUF key tokenizer.ggml.pre: \"martian\" is not supported");
  expect([](auto& m) { m["tokenizer.ggml.tokens"] = true; }, "has another type than expected");
  expect([](auto& m) { m["tokenizer.ggml.token_type"] = std::vector<int64_t>{1}; },
         "1 entries for 259 tokens");
  expect([](auto& m) { m["tokenizer.ggml.merges"] = std::vector<std::string>{"ab"}; },
         "entry 0, \"ab\", is not two tokens");
  expect([](auto& m) { std::get<std::vector<std::string>>(m["tokenizer.ggml.tokens"])[5] = "a"; },
         "are both \"a\"");
  expect(
      [](auto& m) {
        m["tokenizer.ggml.add_eos_token"] = true;
        m["tokenizer.ggml.eos_token_id"] = uint64_t{9999};
      },
      "GGUF key tokenizer.ggml.eos_token_id: 9999 is outside the vocabulary of 259");
  expect(
      [](auto& m) {
        m["tokenizer.ggml.add_bos_token"] = true;
        m.erase("tokenizer.ggml.bos_token_id");
      },
      "tokenizer.ggml.bos_token_id: missing");
}

}  // namespace
}  // namespace essor::model
