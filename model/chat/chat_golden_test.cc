// Chat templates against what transformers renders (tests/parity/README.md).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "model/chat/chat_template.h"
#include "model/chat/deepseek_v32_encoder.h"
#include "model/chat/prompt_encoding.h"
#include "model/tokenizer/tokenizer.h"

namespace essor::model {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::ordered_json;

Json LoadGoldens() {
  std::ifstream file(std::string(ESSOR_SOURCE_DIR) + "/tests/data/chat/golden.json");
  return Json::parse(file);
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

ChatTemplate::Tokens ReadTokens(const Json& tokens) {
  return {.bos_token = tokens.value("bos_token", ""),
          .eos_token = tokens.value("eos_token", ""),
          .pad_token = tokens.value("pad_token", ""),
          .unk_token = tokens.value("unk_token", "")};
}

// A case's template and input.
struct Prepared {
  std::unique_ptr<ChatTemplate> chat_template;
  ChatInput input;
};

absl::StatusOr<Prepared> Prepare(const Json& goldens, const Json& golden) {
  const bool snippet = golden.contains("source");
  const auto field = [&](const char* name, const char* shared) {
    if (golden.contains(name)) return golden[name];
    return snippet ? goldens[shared] : Json::object();
  };
  const std::string source =
      snippet ? golden["source"].get<std::string>()
              : goldens["templates"][golden["template"].get<std::string>()].get<std::string>();
  auto parsed = ChatTemplate::Parse(source, ReadTokens(field("tokens", "snippet_tokens")));
  if (!parsed.ok()) return parsed.status();
  Prepared prepared{*std::move(parsed), {}};
  ChatInput& input = prepared.input;
  input.messages_json =
      (snippet ? goldens["snippet_messages"]
               : goldens["conversations"][golden["conversation"].get<std::string>()])
          .dump();
  if (golden.contains("tools") && !golden["tools"].is_null()) {
    input.tools_json = golden["tools"].dump();
  }
  input.add_generation_prompt = golden["add_generation_prompt"].get<bool>();
  input.kwargs_json = field("kwargs", "snippet_kwargs").dump();
  return prepared;
}

absl::StatusOr<std::string> RenderCase(const Json& goldens, const Json& golden) {
  absl::StatusOr<Prepared> prepared = Prepare(goldens, golden);
  if (!prepared.ok()) return prepared.status();
  return prepared->chat_template->Render(prepared->input);
}

TEST(ChatGoldenTest, EveryCaseRendersAsTransformersRendersIt) {
  const Json goldens = LoadGoldens();
  ASSERT_GT(goldens["cases"].size(), 200u);
  for (const Json& golden : goldens["cases"]) {
    SCOPED_TRACE((golden.contains("template") ? golden["template"].get<std::string>() + " " : "") +
                 golden["name"].get<std::string>());
    const absl::StatusOr<std::string> text = RenderCase(goldens, golden);
    if (golden.contains("text")) {
      EXPECT_TRUE(text.ok()) << text.status();
      if (text.ok()) {
        EXPECT_EQ(*text, golden["text"].get<std::string>());
      }
    } else {
      EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument)
          << (text.ok() ? *text : text.status().ToString());
      EXPECT_THAT(std::string(text.status().message()),
                  HasSubstr(golden["error"].get<std::string>()));
    }
  }
}

TEST(ChatGoldenTest, EveryFamilyHasTwentyFiveConversations) {
  const Json goldens = LoadGoldens();
  std::map<std::string, std::set<std::string>> rendered;
  for (const Json& golden : goldens["cases"]) {
    if (!golden.contains("template") || !golden.contains("text")) continue;
    rendered[golden["template"].get<std::string>()].insert(golden["text"].get<std::string>());
  }
  for (const char* family :
       {"deepseek_v3", "deepseek_r1", "deepseek_v31", "qwen3", "qwq", "llama3", "llama4", "mixtral",
        "glm45", "ernie45", "kimi_k2", "minimax_m1", "minimax_m2", "harmony"}) {
    EXPECT_GE(rendered[family].size(), 25u) << family;
  }
}

// The files of DeepSeek and Qwen are too large for the tree: ESSOR_TOKENIZERS_DIR names a directory
// with NAME/tokenizer.json.xz.
TEST(ChatGoldenTest, PromptsHaveTheIdsThatTheLibraryGives) {
  const char* const directory = std::getenv("ESSOR_TOKENIZERS_DIR");
  if (directory == nullptr) GTEST_SKIP() << "ESSOR_TOKENIZERS_DIR is not set";
  const Json goldens = LoadGoldens();
  std::map<std::string, std::unique_ptr<Tokenizer>> tokenizers;
  for (const Json& golden : goldens["cases"]) {
    if (!golden.contains("ids")) continue;
    const auto name = golden["template"].get<std::string>();
    SCOPED_TRACE(golden["name"].get<std::string>());
    if (!tokenizers.contains(name)) {
      auto tokenizer = Tokenizer::FromTokenizerJson(
          ReadXz(std::string(directory) + "/" + name + "/tokenizer.json.xz"));
      ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
      tokenizers[name] = *std::move(tokenizer);
    }
    const absl::StatusOr<Prepared> prepared = Prepare(goldens, golden);
    ASSERT_TRUE(prepared.ok()) << prepared.status();
    const auto ids = EncodeChat(*prepared->chat_template, *tokenizers[name], prepared->input);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*ids, golden["ids"].get<std::vector<TokenId>>());
  }
  EXPECT_EQ(tokenizers.size(), 2u);
}

// DeepSeek V3.2's own encoder (make_dsv32_goldens.py).
TEST(ChatGoldenTest, DeepSeekV32PromptsEqualTheReferenceEncoders) {
  std::ifstream file(std::string(ESSOR_SOURCE_DIR) + "/tests/data/chat/deepseek_v32_golden.json");
  const Json goldens = Json::parse(file);
  const auto encoder = MakeDeepSeekV32Encoder();
  ASSERT_GE(goldens["cases"].size(), 50u);
  for (const Json& golden : goldens["cases"]) {
    SCOPED_TRACE(golden["name"].get<std::string>());
    const auto text =
        encoder->Render({.messages_json = golden["messages"].dump(),
                         .tools_json = golden.contains("tools") ? golden["tools"].dump() : "",
                         .kwargs_json = Json({{"thinking_mode", golden["thinking_mode"]}}).dump()});
    if (golden.contains("text")) {
      EXPECT_EQ(text.value_or(text.status().ToString()), golden["text"].get<std::string>());
    } else {
      EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument);
    }
  }
}

}  // namespace
}  // namespace essor::model
