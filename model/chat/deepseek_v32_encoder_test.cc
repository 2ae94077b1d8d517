// Beyond the goldens (chat_golden_test.cc): what the reference cannot be asked, and whether the
// parser of answers reads the calls that the encoder writes.
#include "model/chat/deepseek_v32_encoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/chat/output/output_parser.h"

namespace essor::model {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

absl::StatusOr<std::string> Render(std::string messages, std::string kwargs = "",
                                   std::string tools = "") {
  return MakeDeepSeekV32Encoder()->Render({.messages_json = std::move(messages),
                                           .tools_json = std::move(tools),
                                           .kwargs_json = std::move(kwargs)});
}

std::string ErrorOf(std::string messages, std::string kwargs = "", std::string tools = "") {
  const auto text = Render(std::move(messages), std::move(kwargs), std::move(tools));
  EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument) << text.value_or("");
  return std::string(text.status().message());
}

TEST(DeepSeekV32EncoderTest, ThinkingIsChosenByAnyOfItsNames) {
  const std::string question = R"([{"role": "user", "content": "Q"}])";
  EXPECT_THAT(*Render(question), EndsWith("Q<｜Assistant｜></think>"));
  for (const char* kwargs : {R"({"thinking": true})", R"({"enable_thinking": true})",
                             R"({"thinking_mode": "thinking", "thinking": false})"}) {
    EXPECT_THAT(*Render(question, kwargs), EndsWith("Q<｜Assistant｜><think>")) << kwargs;
  }
  for (const char* kwargs : {R"({"thinking": false, "enable_thinking": true})", R"({"x": 1})",
                             R"({"thinking_mode": "chat", "thinking": true})", "{}"}) {
    EXPECT_THAT(*Render(question, kwargs), EndsWith("</think>")) << kwargs;
  }
  EXPECT_THAT(ErrorOf(question, R"({"thinking": 1})"), HasSubstr("kwargs.thinking: not a boolean"));
  EXPECT_THAT(ErrorOf(question, R"({"thinking_mode": "off"})"),
              HasSubstr("thinking_mode: neither"));
  EXPECT_THAT(ErrorOf(question, "[]"), HasSubstr("chat_template_kwargs: not an object"));
  EXPECT_THAT(ErrorOf(question, "{"), HasSubstr("chat_template_kwargs"));
}

TEST(DeepSeekV32EncoderTest, PartsOfTextAreJoinedByNewlines) {
  EXPECT_THAT(*Render(R"([{"role": "user", "content": [{"type": "text", "text": "a"},
                                                      {"type": "text", "text": "b"}]}])"),
              HasSubstr("<｜User｜>a\nb<｜Assistant｜>"));
  EXPECT_THAT(ErrorOf(R"([{"role": "user", "content": [{"type": "image_url"}]}])"),
              HasSubstr("messages[0]: content[0]: not text"));
}

TEST(DeepSeekV32EncoderTest, ArgumentsMayBeAnObject) {
  EXPECT_THAT(*Render(R"([{"role": "user", "content": "Q"}, {"role": "assistant", "tool_calls":
                [{"function": {"name": "f", "arguments": {"a": 1.0, "b": "x"}}}]}])"),
              HasSubstr("<｜DSML｜parameter name=\"a\" string=\"false\">1.0</｜DSML｜parameter>\n"
                        "<｜DSML｜parameter name=\"b\" string=\"true\">x</｜DSML｜parameter>\n"));
}

TEST(DeepSeekV32EncoderTest, DeveloperMessagesStayWhenThinking) {
  const auto text = Render(R"([{"role": "developer", "content": "D"},
                               {"role": "assistant", "content": "A"},
                               {"role": "user", "content": "Q"}])",
                           R"({"thinking": true})");
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_THAT(*text, StartsWith("<｜begin▁of▁sentence｜><｜User｜>\n\n# The user's message is: "
                                "D<｜Assistant｜></think>A<｜end▁of▁sentence｜>"));
}

TEST(DeepSeekV32EncoderTest, SaysWhichMessageIsWrong) {
  EXPECT_THAT(ErrorOf("{}"), HasSubstr("messages: not an array"));
  EXPECT_THAT(ErrorOf("[1]"), HasSubstr("messages[0]: not an object"));
  EXPECT_THAT(ErrorOf("[{}]"), HasSubstr("messages[0]: role: missing"));
  EXPECT_THAT(ErrorOf(R"([{"role": "critic"}])"), HasSubstr("messages[0]: role 'critic'; known"));
  EXPECT_THAT(ErrorOf(R"([{"role": "user"}])"), HasSubstr("messages[0]: content: missing"));
  EXPECT_THAT(ErrorOf(R"([{"role": "user", "content": 5}])"), HasSubstr("content: neither text"));
  EXPECT_THAT(ErrorOf(R"([{"role": "tool", "content": "r"}])"), HasSubstr("made no call for it"));
  const auto call = [](const std::string& calls) {
    return R"([{"role": "user", "content": "Q"}, {"role": "assistant", "tool_calls": )" + calls +
           "}]";
  };
  EXPECT_THAT(ErrorOf(call("3")), HasSubstr("messages[1]: tool_calls: not an array"));
  EXPECT_THAT(ErrorOf(call("[{}]")), HasSubstr("messages[1]: tool_calls[0]: no function"));
  EXPECT_THAT(ErrorOf(call(R"([{"function": {"arguments": {}}}])")), HasSubstr("function.name"));
  EXPECT_THAT(ErrorOf(call(R"([{"function": {"name": "f"}}])")),
              HasSubstr("function.arguments: missing"));
  EXPECT_THAT(ErrorOf(call(R"([{"function": {"name": "f", "arguments": "{"}}])")),
              HasSubstr("tool_calls[0]: function.arguments"));
  EXPECT_THAT(ErrorOf(call(R"([{"function": {"name": "f", "arguments": "[]"}}])")),
              HasSubstr("function.arguments: not an object"));
  EXPECT_THAT(ErrorOf(R"([{"role": "assistant", "reasoning_content": 1}])"),
              HasSubstr("reasoning_content: not a string"));
  EXPECT_THAT(ErrorOf("[]", "", "{}"), HasSubstr("tools: not an array"));
  EXPECT_THAT(ErrorOf("[]", "", "[5]"), HasSubstr("tools[0]: no function"));
  EXPECT_THAT(ErrorOf("[]", "", "["), HasSubstr("tools"));
  EXPECT_THAT(ErrorOf(R"([{"role": "developer", "content": ""}])"),
              HasSubstr("a developer message must not be empty"));
  EXPECT_THAT(
      ErrorOf(R"([{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}])",
              R"({"thinking": true})"),
      HasSubstr("messages[1]: thinking: an answer to the last question needs"));
}

TEST(DeepSeekV32EncoderTest, TheParserOfAnswersReadsWhatTheEncoderWrites) {
  const std::string arguments =
      R"({"s": "a \"b\"\n<c>", "i": 3, "f": 0.5, "l": [1, {"k": null}], "t": true, "n": null})";
  const auto prompt = Render(R"([{"role": "user", "content": "Q"},
      {"role": "assistant", "content": "Let me see.", "reasoning_content": "Hm.", "tool_calls": [
        {"function": {"name": "f", "arguments": )" +
                                 arguments + R"(}},
        {"function": {"name": "g", "arguments": {}}}]}])",
                             R"({"thinking": true})");
  ASSERT_TRUE(prompt.ok()) << prompt.status();
  const std::string marker = "<｜Assistant｜><think>";
  const std::string end = "<｜end▁of▁sentence｜>";
  std::string answer = prompt->substr(prompt->find(marker) + marker.size());
  ASSERT_THAT(answer, EndsWith(end));
  answer.resize(answer.size() - end.size());

  auto parser = OutputParser::Create(
      {.syntax = DetectOutputSyntax("deepseek_v32", ""), .begins_in_reasoning = true});
  ASSERT_TRUE(parser.ok()) << parser.status();
  std::string reasoning;
  std::string content;
  std::vector<std::pair<std::string, std::string>> calls;
  const auto take = [&](const std::vector<OutputDelta>& deltas) {
    for (const OutputDelta& delta : deltas) {
      if (delta.kind == OutputDelta::Kind::kReasoning) reasoning += delta.text;
      if (delta.kind == OutputDelta::Kind::kContent) content += delta.text;
      if (delta.kind == OutputDelta::Kind::kCallBegin) calls.emplace_back(delta.call_name, "");
      if (delta.kind == OutputDelta::Kind::kCallArguments) calls.back().second += delta.text;
    }
  };
  for (const char& byte : answer) take((*parser)->Feed(std::string_view(&byte, 1)));
  take((*parser)->Finish());
  EXPECT_EQ(reasoning, "Hm.");
  EXPECT_EQ(content, "Let me see.");
  ASSERT_EQ(calls.size(), 2u);
  EXPECT_EQ(calls[0].first, "f");
  EXPECT_EQ(calls[0].second, arguments);
  EXPECT_EQ(calls[1], (std::pair<std::string, std::string>("g", "{}")));
}

}  // namespace
}  // namespace essor::model
