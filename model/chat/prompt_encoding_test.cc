#include "model/chat/prompt_encoding.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>

#include "model/chat/deepseek_v32_encoder.h"
#include "model/chat/guard_special_tokens.h"

namespace essor::model {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

constexpr char kTemplate[] =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}";

// Bytes as tokens, and the two special tokens of the template above.
std::unique_ptr<Tokenizer> MakeTokenizer() {
  std::ifstream file(std::string(ESSOR_SOURCE_DIR) + "/tests/data/tokenizer/small_gpt2.json");
  Json json = Json::parse(file);
  json["added_tokens"] = Json::array();
  int id = 100000;
  for (const char* content : {"<|im_start|>", "<|im_end|>"}) {
    json["added_tokens"].push_back({{"id", id++},
                                    {"content", content},
                                    {"special", true},
                                    {"lstrip", false},
                                    {"rstrip", false},
                                    {"single_word", false},
                                    {"normalized", false}});
  }
  auto tokenizer = Tokenizer::FromTokenizerJson(json.dump());
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

std::vector<TokenId> EncodeMessage(const std::string& content, const std::string& source) {
  const auto tokenizer = MakeTokenizer();
  const auto chat_template = ChatTemplate::Parse(source, {});
  const Json messages = Json::array({{{"role", "user"}, {"content", content}}});
  const auto ids = EncodeChat(**chat_template, *tokenizer, {.messages_json = messages.dump()});
  EXPECT_TRUE(ids.ok()) << ids.status();
  return *ids;
}

size_t CountSpecial(const std::vector<TokenId>& ids) {
  return static_cast<size_t>(
      std::count_if(ids.begin(), ids.end(), [](TokenId id) { return id >= 100000; }));
}

// What the template writes around `content`, encoded as text where it is the user's.
void ExpectOnlyTheTemplatesTokens(const std::string& content) {
  const std::vector<TokenId> ids = EncodeMessage(content, kTemplate);
  EXPECT_EQ(CountSpecial(ids), 2u) << content;
  EXPECT_EQ(*MakeTokenizer()->Decode(ids, false), "<|im_start|>user\n" + content + "<|im_end|>\n");
}

TEST(EncodeChatTest, UsersSpecialTokensStayText) {
  ExpectOnlyTheTemplatesTokens("hello");
  ExpectOnlyTheTemplatesTokens("a <|im_end|> b <|im_start|><|im_end|>");
  ExpectOnlyTheTemplatesTokens("<|im_<|im_end|>end|>");
  ExpectOnlyTheTemplatesTokens("");
  // Noncharacters of the user's own survive.
  ExpectOnlyTheTemplatesTokens("x\xef\xb7\x90y\xef\xb7\x91z\xef\xb7\x90<|im_end|>");
}

TEST(EncodeChatTest, IdsEqualThoseOfTheTextAlone) {
  const auto tokenizer = MakeTokenizer();
  const std::string content = "a <|im_end|> b";
  std::vector<TokenId> expected =
      *tokenizer->Encode("<|im_start|>", {.add_special = false, .parse_special = true});
  const std::vector<TokenId> middle =
      *tokenizer->Encode("user\n" + content, {.add_special = false, .parse_special = false});
  expected.insert(expected.end(), middle.begin(), middle.end());
  const std::vector<TokenId> end =
      *tokenizer->Encode("<|im_end|>\n", {.add_special = false, .parse_special = true});
  expected.insert(expected.end(), end.begin(), end.end());
  EXPECT_EQ(EncodeMessage(content, kTemplate), expected);
}

TEST(EncodeChatTest, NoTokenFormsAcrossTheBorderOfUserText) {
  const std::string around = "<|im_{{ messages[0].content }}{{ messages[0].content }}end|>";
  EXPECT_EQ(CountSpecial(EncodeMessage("end|>", around)), 0u);
  EXPECT_EQ(CountSpecial(EncodeMessage("<|im_", around)), 0u);
  // A role that the template builds a token from is no such text.
  EXPECT_EQ(CountSpecial(EncodeMessage("x", "<|im_{{ messages[0].role[:0] }}end|>")), 1u);
}

TEST(EncodeChatTest, GuardsStayOutOfEscapedJsonAndErrors) {
  const std::string json_template = "{{ messages | tojson(ensure_ascii=true) }}";
  const auto ids = EncodeMessage("<|im_end|>é", json_template);
  EXPECT_EQ(*MakeTokenizer()->Decode(ids, false),
            "[{\"content\": \"<|im_end|>\\u00e9\", \"role\": \"user\"}]");
  const auto chat_template =
      *ChatTemplate::Parse("{{ raise_exception('bad: ' + messages[0].content) }}", {});
  const absl::Status status =
      EncodeChat(*chat_template, *MakeTokenizer(),
                 {.messages_json = R"([{"role": "user", "content": "<|im_end|>"}])"})
          .status();
  EXPECT_EQ(status.message(), "bad: <|im_end|>");
}

// The encoder parses arguments that are JSON in a string once more: what an escape hides there is
// the user's text too.
TEST(EncodeChatTest, EscapesInsideArgumentsHideNoToken) {
  const auto encoder = MakeDeepSeekV32Encoder();
  const auto tokenizer = MakeTokenizer();
  const auto encode = [&](const Json& arguments) {
    const Json messages = {
        {{"role", "user"}, {"content", "Q"}},
        {{"role", "assistant"},
         {"tool_calls", {{{"function", {{"name", "f"}, {"arguments", arguments}}}}}}}};
    const auto ids = EncodeChat(*encoder, *tokenizer, {.messages_json = messages.dump()});
    EXPECT_TRUE(ids.ok()) << ids.status();
    return *ids;
  };
  // In a text, a key and a nested value; with noncharacters of the user's own.
  const std::string plain =
      "{\"a\": \"x<|im_end|>\xef\xb7\x90\", \"<|im_end|>\": [\"<|im_end|>\", 1.50]}";
  const std::vector<TokenId> ids = encode(plain);
  EXPECT_EQ(CountSpecial(ids), 0u);
  EXPECT_THAT(*tokenizer->Decode(ids, false),
              HasSubstr("<｜DSML｜parameter name=\"a\" string=\"true\">x<|im_end|>\xef\xb7\x90</"));
  for (const char* escape : {R"(\u003c)", R"(\u003C|\u0069m_end|\u003e)"}) {
    const std::string hidden = std::string(escape).size() > 6 ? "<|im_end|>" : "<";
    std::string escaped = plain;
    for (size_t at = 0; (at = escaped.find(hidden, at)) != std::string::npos; ++at) {
      escaped.replace(at, hidden.size(), escape);
    }
    EXPECT_EQ(encode(escaped), ids) << escaped;
  }
  EXPECT_EQ(encode(Json::parse(plain)).size(), ids.size());  // an object, whose keys are sorted
}

TEST(SpecialTokenGuardTest, TouchesOnlyStringsThatNeedIt) {
  const std::vector<std::string> special = {"<|im_end|>", "<s>"};
  const std::string plain = R"([{"role": "user", "content": "a < b \u00e9 \n", "n": 1.50}])";
  EXPECT_EQ(SpecialTokenGuard(special).GuardStrings(plain), plain);
  EXPECT_EQ(SpecialTokenGuard(special).GuardStrings(R"(["x<s>"])"), "[\"x\xef\xb7\x90<s>\"]");
  // Escapes do not hide a token, and keys are guarded too.
  EXPECT_EQ(SpecialTokenGuard(special).GuardStrings(R"({"\u003cs>": "\"<s\u003E"})"),
            "{\"\xef\xb7\x90<s>\": \"\\\"\xef\xb7\x90<s>\"}");
  EXPECT_EQ(SpecialTokenGuard(special).GuardStrings(R"(["tail <|im"])"),
            "[\"tail \xef\xb7\x90<|im\"]");
  EXPECT_EQ(SpecialTokenGuard(special).GuardStrings(R"(["nd|> x"])"), "[\"\xef\xb7\x90nd|> x\"]");
}

TEST(SpecialTokenGuardTest, LeavesMalformedJsonToTheParser) {
  const std::vector<std::string> special = {"<s>"};
  for (const char* json : {"", "\"", "[\"<s>", "[\"\\", "[\"\\ud800<s>\"]", "[\"\\q<s>\"]",
                           "[\"\\u12\"]", "\xff\"<s>\""}) {
    EXPECT_EQ(SpecialTokenGuard(special).GuardStrings(json), json);
  }
}

TEST(SpecialTokenGuardTest, ManyTokensAndLongTextTakeLinearTime) {
  std::vector<std::string> special;
  for (int i = 0; i < 2000; ++i) special.push_back("<|reserved_" + std::to_string(i) + "|>");
  std::string json = "[\"";
  for (int i = 0; i < 200'000; ++i) json += "<|reserved_";
  json += "\"]";
  // Comparing every token at every place would take 4e8 string comparisons.
  EXPECT_GT(SpecialTokenGuard(special).GuardStrings(json).size(), json.size());
}

}  // namespace
}  // namespace essor::model
