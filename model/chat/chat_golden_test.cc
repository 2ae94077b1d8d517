// Chat templates against what transformers renders (tests/parity/README.md).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "model/chat/chat_template.h"

namespace essor::model {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::ordered_json;

Json LoadGoldens() {
  std::ifstream file(std::string(ESSOR_SOURCE_DIR) + "/tests/data/chat/golden.json");
  return Json::parse(file);
}

ChatTemplate::Tokens ReadTokens(const Json& tokens) {
  return {.bos_token = tokens.value("bos_token", ""),
          .eos_token = tokens.value("eos_token", ""),
          .pad_token = tokens.value("pad_token", ""),
          .unk_token = tokens.value("unk_token", "")};
}

absl::StatusOr<std::string> RenderCase(const Json& goldens, const Json& golden) {
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
  ChatInput input;
  input.messages_json =
      (golden.contains("messages") ? golden["messages"] : goldens["snippet_messages"]).dump();
  if (golden.contains("tools") && !golden["tools"].is_null()) {
    input.tools_json = golden["tools"].dump();
  }
  input.add_generation_prompt = golden["add_generation_prompt"].get<bool>();
  input.kwargs_json = field("kwargs", "snippet_kwargs").dump();
  return (*parsed)->Render(input);
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

}  // namespace
}  // namespace essor::model
