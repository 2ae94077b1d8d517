// Token ids against the Hugging Face library's (tests/parity/README.md). The files of DeepSeek and
// Qwen are too large for the tree: ESSOR_TOKENIZERS_DIR names a directory with NAME/tokenizer.json
// (or .xz), ESSOR_SMOLLM2_GGUF the SmolLM2 file.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/checkpoint/gguf.h"
#include "model/tokenizer/tokenizer.h"
#include "model/tokenizer/tokenizer_config.h"

namespace essor::model {
namespace {

using Json = nlohmann::json;

std::string DataPath(const std::string& name) {
  return std::string(ESSOR_SOURCE_DIR) + "/tests/data/tokenizer/" + name;
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string ReadXz(const std::string& path) {
  FILE* const pipe = popen(("xz -dc '" + path + "'").c_str(), "r");
  if (pipe == nullptr) return "";
  std::string content;
  char buffer[65536];
  for (size_t n; (n = fread(buffer, 1, sizeof(buffer), pipe)) > 0;) content.append(buffer, n);
  pclose(pipe);
  return content;
}

std::vector<TokenId> ReadIds(const Json& ids) {
  if (ids.is_array()) return ids.get<std::vector<TokenId>>();
  std::vector<TokenId> result;
  for (const Json& run : ids["runs"]) {
    result.insert(result.end(), run[1].get<size_t>(), run[0].get<TokenId>());
  }
  return result;
}

std::vector<std::string> ReadTexts() {
  std::vector<std::string> texts;
  for (const Json& entry : Json::parse(ReadFile(DataPath("texts.json")))) {
    std::string text;
    for (size_t i = 0; i < entry.value("repeat", size_t{1}); ++i) {
      text += entry["text"].get<std::string>();
    }
    texts.push_back(std::move(text));
  }
  return texts;
}

std::vector<TokenId> Encode(const Tokenizer& tokenizer, const std::string& text,
                            const EncodeOptions& options) {
  absl::StatusOr<std::vector<TokenId>> ids = tokenizer.Encode(text, options);
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.ok() ? *std::move(ids) : std::vector<TokenId>();
}

std::string Decode(const Tokenizer& tokenizer, const std::vector<TokenId>& ids, bool skip_special) {
  const absl::StatusOr<std::string> text = tokenizer.Decode(ids, skip_special);
  EXPECT_TRUE(text.ok()) << text.status();
  IncrementalDetokenizer detokenizer(&tokenizer, skip_special);
  std::string incremental;
  for (const TokenId id : ids) incremental += detokenizer.Push(id);
  incremental += detokenizer.Finish();
  EXPECT_EQ(incremental, *text);
  return *text;
}

void ExpectGoldens(const Tokenizer& tokenizer, const std::string& name) {
  const Json golden = Json::parse(ReadFile(DataPath(name + "_golden.json")));
  const std::vector<std::string> texts = ReadTexts();
  ASSERT_EQ(golden["encode"].size(), texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    SCOPED_TRACE("text " + std::to_string(i) + ": " + texts[i].substr(0, 200));
    const Json& expected = golden["encode"][i];
    const std::vector<TokenId> ids = ReadIds(expected["ids"]);
    const auto or_ids = [&](const char* key) {
      return expected.contains(key) ? ReadIds(expected[key]) : ids;
    };
    ASSERT_EQ(Encode(tokenizer, texts[i], {.add_special = false, .parse_special = true}), ids);
    EXPECT_EQ(Encode(tokenizer, texts[i], {.add_special = true, .parse_special = true}),
              or_ids("add_special"));
    EXPECT_EQ(Encode(tokenizer, texts[i], {.add_special = false, .parse_special = false}),
              or_ids("plain"));
    const std::string decoded = expected.value("decoded", texts[i]);
    EXPECT_EQ(Decode(tokenizer, ids, false), decoded);
    EXPECT_EQ(Decode(tokenizer, ids, true), expected.value("decoded_skip", decoded));
  }
  for (const Json& expected : golden["decode"]) {
    const std::vector<TokenId> ids = ReadIds(expected["ids"]);
    const auto text = expected["text"].get<std::string>();
    EXPECT_EQ(Decode(tokenizer, ids, false), text);
    EXPECT_EQ(Decode(tokenizer, ids, true), expected.value("text_skip", text));
  }
}

void ExpectGoldensOfJson(const std::string& json, const std::string& name) {
  const auto tokenizer = Tokenizer::FromTokenizerJson(json);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  ExpectGoldens(**tokenizer, name);
}

// The content of NAME/tokenizer.json; empty where the directory is not there.
std::string FindRealTokenizer(const std::string& name) {
  std::vector<std::filesystem::path> roots;
  if (const char* root = std::getenv("ESSOR_TOKENIZERS_DIR")) roots.emplace_back(root);
  roots.push_back(std::filesystem::path(ESSOR_SOURCE_DIR).parent_path() / "shared/tokenizers");
  for (const auto& root : roots) {
    const std::filesystem::path path = root / name / "tokenizer.json";
    if (std::filesystem::exists(path)) return ReadFile(path);
    if (std::filesystem::exists(path.string() + ".xz")) return ReadXz(path.string() + ".xz");
  }
  return "";
}

class SmallTokenizerGoldenTest : public testing::TestWithParam<const char*> {};

TEST_P(SmallTokenizerGoldenTest, IdsAndTextsEqualTheLibrarys) {
  const std::string name = GetParam();
  ExpectGoldensOfJson(ReadFile(DataPath(name + ".json")), name);
}

INSTANTIATE_TEST_SUITE_P(Small, SmallTokenizerGoldenTest,
                         testing::Values("small_gpt2", "small_llama3", "small_flags",
                                         "plain_bpe_prepend", "plain_bpe_metaspace",
                                         "plain_bpe_unk", "plain_unigram_metaspace",
                                         "plain_unigram_bytes"));

TokenizerConfig ReadConfig(const std::string& name) {
  const auto config = ParseTokenizerConfig(ReadFile(DataPath(name + "/tokenizer_config.json")));
  EXPECT_TRUE(config.ok()) << config.status();
  return config.value_or(TokenizerConfig());
}

class SentencePieceGoldenTest : public testing::TestWithParam<const char*> {};

TEST_P(SentencePieceGoldenTest, IdsAndTextsEqualTheLibrarys) {
  const std::string name = GetParam();
  const auto tokenizer =
      Tokenizer::FromSentencePiece(ReadFile(DataPath(name + "/tokenizer.model")), ReadConfig(name));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  ExpectGoldens(**tokenizer, name);
}

INSTANTIATE_TEST_SUITE_P(Small, SentencePieceGoldenTest,
                         testing::Values("spm_bpe", "spm_bpe_unk", "spm_unigram",
                                         "spm_unigram_unk"));

TEST(TiktokenGoldenTest, KimiIdsAndTextsEqualTheLibrarys) {
  const auto tokenizer =
      Tokenizer::FromTiktoken(ReadFile(DataPath("kimi/tiktoken.model")), ReadConfig("kimi"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  ExpectGoldens(**tokenizer, "kimi");
}

class RealTokenizerGoldenTest : public testing::TestWithParam<const char*> {};

TEST_P(RealTokenizerGoldenTest, IdsAndTextsEqualTheLibrarys) {
  const std::string name = GetParam();
  const std::string json = FindRealTokenizer(name);
  if (json.empty()) GTEST_SKIP() << "no " << name << "/tokenizer.json; set ESSOR_TOKENIZERS_DIR";
  ExpectGoldensOfJson(json, name);
}

INSTANTIATE_TEST_SUITE_P(Real, RealTokenizerGoldenTest, testing::Values("deepseek_v3", "qwen3"));

TEST(GgufTokenizerGoldenTest, SmolLm2IdsAndTextsEqualTheLibrarys) {
  const char* path = std::getenv("ESSOR_SMOLLM2_GGUF");
  if (path == nullptr) GTEST_SKIP() << "set ESSOR_SMOLLM2_GGUF to the SmolLM2 file";
  const auto file = GgufFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  const auto tokenizer = Tokenizer::FromGguf(**file);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  ExpectGoldens(**tokenizer, "smollm2");
}

}  // namespace
}  // namespace essor::model
