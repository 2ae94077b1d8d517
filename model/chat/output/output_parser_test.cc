#include "model/chat/output/output_parser.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "model/chat/output/output_merge.h"

namespace essor::model {
namespace {

constexpr char kTools[] = R"([
  {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {
    "s": {"type": "string"}, "n": {"type": "integer"}, "x": {"type": "number"},
    "b": {"type": "boolean"}, "o": {"type": "object"}, "l": {"type": "array"},
    "u": {"anyOf": [{"type": "string"}, {"type": "null"}]}}}}},
  {"name": "g"}])";

struct Stream {
  std::string text;
  std::string expected;  // as DescribeDeltas() writes it
};

std::string Parse(const OutputParserOptions& options, const std::vector<std::string_view>& parts) {
  const auto parser = OutputParser::Create(options);
  if (!parser.ok()) return parser.status().ToString();
  std::vector<OutputDelta> merged;
  for (const std::string_view part : parts) MergeDeltas((*parser)->Feed(part), &merged);
  MergeDeltas((*parser)->Finish(), &merged);
  return DescribeDeltas(merged);
}

// The stream whole, byte by byte, and cut at every two places.
void ExpectStreams(const OutputParserOptions& options, const std::vector<Stream>& streams) {
  for (const Stream& stream : streams) {
    const std::string_view text = stream.text;
    ASSERT_EQ(Parse(options, {text}), stream.expected) << text;
    std::vector<std::string_view> bytes;
    for (size_t i = 0; i < text.size(); ++i) bytes.push_back(text.substr(i, 1));
    ASSERT_EQ(Parse(options, bytes), stream.expected) << "byte by byte: " << text;
    for (size_t i = 0; i <= text.size(); ++i) {
      for (size_t j = i; j <= text.size(); ++j) {
        ASSERT_EQ(Parse(options, {text.substr(0, i), text.substr(i, j - i), text.substr(j)}),
                  stream.expected)
            << text << " cut at " << i << " and " << j;
      }
    }
  }
}

// With the tools only where they matter: every one of some 10^5 parsers reads them.
OutputParserOptions With(CallSyntax calls, ReasoningSyntax reasoning = ReasoningSyntax::kNone) {
  const bool typed = calls == CallSyntax::kQwenXml || calls == CallSyntax::kGlm ||
                     calls == CallSyntax::kMiniMaxXml || calls == CallSyntax::kLlamaJson ||
                     calls == CallSyntax::kLlamaPython;
  return {.syntax = {.calls = calls, .reasoning = reasoning}, .tools_json = typed ? kTools : ""};
}

TEST(OutputParserTest, NoSyntaxGivesAllAsContent) {
  ExpectStreams(
      With(CallSyntax::kNone),
      {{"", ""}, {" a <tool_call>{}</tool_call>\n", "C( a <tool_call>{}</tool_call>\n)"}});
  OutputParserOptions off = With(CallSyntax::kHermes);
  off.calls = false;
  const std::string call = R"(<tool_call>{"name": "f"}</tool_call>)";
  ExpectStreams(off, {{call, "C(" + call + ")"}});
}

// Messages are told apart without calls too, and a call is text.
TEST(OutputParserTest, HarmonyWithoutCallsKeepsTheirText) {
  OutputParserOptions off = With(CallSyntax::kHarmony);
  off.calls = false;
  const std::string call =
      "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"a\": 1}<|call|>";
  const auto parser = OutputParser::Create(off);
  ASSERT_TRUE(parser.ok()) << parser.status();
  std::vector<OutputDelta> deltas = (*parser)->Feed(call);
  for (OutputDelta& delta : (*parser)->Finish()) deltas.push_back(std::move(delta));
  std::string text;
  for (const OutputDelta& delta : deltas) {
    EXPECT_EQ(delta.kind, OutputDelta::Kind::kContent);
    text += delta.text;
  }
  EXPECT_EQ(text, call);
}

TEST(OutputParserTest, MalformedToolsAreRefused) {
  for (const char* tools : {"{}", "[1]", "[", "[{\"name\": 1}"}) {
    const auto parser = OutputParser::Create({.tools_json = tools});
    EXPECT_EQ(parser.status().code(), absl::StatusCode::kInvalidArgument) << tools;
  }
}

TEST(OutputParserTest, Reasoning) {
  ExpectStreams(With(CallSyntax::kHermes, ReasoningSyntax::kThink),
                {
                    {"<think>\nwhy\n</think>\n\nSo.", "R(why)C(So.)"},
                    {"\n<think>a\n b</think>c\n", "R(a\n b)C(c\n)"},
                    {"<think></think>c", "C(c)"},
                    {"<think>\n\n</think>\n\n", ""},
                    {"<think>never ends ", "R(never ends )"},
                    {"<think>a </thin k", "R(a </thin k)"},
                    {"<thin k>", "C(<thin k>)"},
                    {" <thi", "C( <thi)"},
                    {"Use <think>x</think>", "C(Use <think>x</think>)"},
                    {"<think>a</think><think>b</think>", "R(a)C(<think>b</think>)"},
                    {"<think><think>a</think>", "R(<think>a)"},
                    {"<think>a <tool_call>{\"name\": \"f\"}</tool_call></think>",
                     "R(a <tool_call>{\"name\": \"f\"}</tool_call>)"},
                    {"<think>é</think>\n<tool_call>{\"name\": \"f\"}</tool_call>", "R(é)F0(|f|{})"},
                });
}

TEST(OutputParserTest, ReasoningThatThePromptOpened) {
  OutputParserOptions options = With(CallSyntax::kNone, ReasoningSyntax::kThink);
  options.begins_in_reasoning = true;
  ExpectStreams(options, {
                             {"\nwhy\n</think>\n\nSo.", "R(why)C(So.)"},
                             {"<think>\nwhy</think>So.", "R(why)C(So.)"},
                             {"</think>So.", "C(So.)"},
                             {"why", "R(why)"},
                             {"<thin", "R(<thin)"},
                             {"a<think>b", "R(a<think>b)"},
                             {"<think><think>b", "R(<think>b)"},
                             {"", ""},
                         });
  options.syntax.reasoning = ReasoningSyntax::kThinkSquare;
  ExpectStreams(options, {{"why[/THINK]So.", "R(why)C(So.)"}});
}

TEST(OutputParserTest, Hermes) {
  ExpectStreams(
      With(CallSyntax::kHermes),
      {
          {"<tool_call>\n{\"name\": \"f\", \"arguments\": {\"s\": \"é \\u00e9 \\\" }\", \"n\": "
           "1}}\n"
           "</tool_call>",
           "F0(|f|{\"s\": \"é é \\\" }\", \"n\": 1})"},
          {"Well.\n<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n"
           "<tool_call>{\"name\":\"g\"}</tool_call>\nDone.",
           "C(Well.)F0(|f|{})F1(|g|{})C(\nDone.)"},
          {"<tool_call>{\"name\": \"f\", \"arguments\": {\"s\": \"</tool_call>\"}}</tool_call> \n",
           "F0(|f|{\"s\": \"</tool_call>\"})"},
          {"<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"n\\\": 2}\"}</tool_call>",
           "F0(|f|{\"n\": 2})"},
      });
}

TEST(OutputParserTest, MalformedHermesComesBack) {
  const char* const texts[] = {
      "a <tool_call>",
      "<tool_call>\n{\"name\": \"f\", \"argum",
      "<tool_call>f</tool_call>",
      "<tool_call>{\"name\": \"f\"}</tool_cal>",
      "<tool_call>{\"name\": \"f\"} more</tool_call>",
      "<tool_call>{\"name\": \"\"}</tool_call>",
      "<tool_call>{\"name\": \"a b\"}</tool_call>",
      "<tool_call>{\"name\": 1}</tool_call>",
      "<tool_call>{\"name\": \"f\", \"thought\": 1}</tool_call>",
      "<tool_call>{\"name\": \"f\", \"arguments\": [1]}</tool_call>",
      "<tool_call>{\"name\": \"f\", \"arguments\": \"x\"}</tool_call>",
      R"(<tool_call>{"name": "f", "arguments": "{\"n\": 1-2-3-4-5-6-7-8-9-0-1}"}</tool_call>)",
      "<tool_call>{\"name\": \"f\", \"arguments\": {}, \"parameters\": {}}</tool_call>",
      "<tool_call>{\"name\": \"f\", \"type\": \"code\"}</tool_call>",
      "<tool_call>{\"name\": \"f\", \"id\": 3}</tool_call>",
      "<tool_call>{\"arguments\": {}}</tool_call>",
      "<tool_call>{\"name\": \"f\", \"arguments\": {\"n\": 01}}</tool_call>",
      "<tool_call>{\"name\": \"f\", \"arguments\": {\"n\": 1.}}</tool_call>",
      "<tool_call>{\"name\": \"f\", \"arguments\": {\"n\": tru}}</tool_call>",
      "<tool_call>{\"name\": \"f\", \"arguments\": {\"n\": [1}}}</tool_call>",
      "<tool_call>{\"name\": \"f\", \"arguments\": {\"n\": \"\\ud800\"}}</tool_call>",
      "<tool_call>{\"name\": \"f\", \"arguments\": {\"s\": \"a\nb\"}}</tool_call>",
      "<tool_call>{\"name\": \"f\", \"arguments\": {\"s\": \"\xff\"}}</tool_call>",
  };
  for (const std::string text : texts) {
    ExpectStreams(With(CallSyntax::kHermes), {{text, "C(" + text + ")"}});
  }
  // What was withheld in vain does not take the next call with it.
  ExpectStreams(With(CallSyntax::kHermes),
                {{"<tool_call>{\"name\" <tool_call>{\"name\": \"g\"}</tool_call>",
                  "C(<tool_call>{\"name\")F0(|g|{})"},
                 {"<tool_<tool_call>{\"name\": \"g\"}</tool_call>", "C(<tool_)F0(|g|{})"}});
}

TEST(OutputParserTest, QwenXmlTypesArgumentsBySchema) {
  ExpectStreams(
      With(CallSyntax::kQwenXml),
      {
          {"<tool_call>\n<function=f>\n<parameter=s>\n12\n</parameter>\n<parameter=n>\n12\n"
           "</parameter>\n</function>\n</tool_call>",
           "F0(|f|{\"s\": \"12\", \"n\": 12})"},
          {"<tool_call><function=f><parameter=b>True</parameter><parameter=u>null</parameter>"
           "</function></tool_call>",
           "F0(|f|{\"b\": true, \"u\": null})"},
          {"<tool_call><function=g>\n</function></tool_call>", "F0(|g|{})"},
          {"<tool_call><function=g><parameter=a>\n\n<b>\n\"q\" </parameter></function></tool_call>",
           "F0(|g|{\"a\": \"\\n<b>\\n\\\"q\\\" \"})"},
          {"<tool_call><function=g", "C(<tool_call><function=g)"},
          {"<tool_call><function=a b></function></tool_call>",
           "C(<tool_call><function=a b></function></tool_call>)"},
          {"<tool_call><function=g><parameter=></parameter></function></tool_call>",
           "C(<tool_call><function=g><parameter=></parameter></function></tool_call>)"},
      });
}

TEST(OutputParserTest, ArgumentTypes) {
  struct Case {
    const char* tool;
    const char* key;
    const char* text;
    const char* json;
  };
  const Case cases[] = {
      {"f", "s", "{\"a\": 1}", "\"{\\\"a\\\": 1}\""},
      {"f", "n", "x", "\"x\""},
      {"f", "n", "true", "\"true\""},
      {"f", "x", " 1.5 ", "1.5"},
      {"f", "b", "false", "false"},
      {"f", "o", "{\"a\": [1, {}]}", "{\"a\": [1, {}]}"},
      {"f", "o", "{\"a\": [1, {}}", "\"{\\\"a\\\": [1, {}}\""},
      {"f", "l", "[1]", "[1]"},
      {"f", "l", "{}", "\"{}\""},
      {"f", "u", "None", "null"},
      {"f", "u", "1", "\"1\""},
      {"g", "any", "1", "1"},
      {"g", "any", "1, \"x\": 2", "\"1, \\\"x\\\": 2\""},
      {"g", "any", "\"q\"", "\"\\\"q\\\"\""},
      {"g", "any", "", "\"\""},
      {"h", "any", "null", "null"},
  };
  for (const Case& c : cases) {
    const std::string call = std::string("<tool_call>") + c.tool + "\n<arg_key>" + c.key +
                             "</arg_key>\n<arg_value>" + c.text + "</arg_value>\n</tool_call>";
    EXPECT_EQ(Parse(With(CallSyntax::kGlm), {call}),
              std::string("F0(|") + c.tool + "|{\"" + c.key + "\": " + c.json + "})");
  }
}

TEST(OutputParserTest, DeepSeekV3) {
  const std::string call =
      "<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"n\": 1}\n```"
      "<｜tool▁call▁end｜>";
  ExpectStreams(With(CallSyntax::kDeepSeekV3),
                {
                    {"Hm<｜tool▁calls▁begin｜>" + call + "\n" + call + "<｜tool▁calls▁end｜>",
                     "C(Hm)F0(|f|{\"n\": 1})F1(|f|{\"n\": 1})"},
                    {"<｜tool▁calls▁begin｜>" + call + "\n", "F0(|f|{\"n\": 1})"},
                    {"<｜tool▁calls▁begin｜>" + call + "\nx<｜tool▁calls▁end｜>",
                     "F0(|f|{\"n\": 1})C(\nx<｜tool▁calls▁end｜>)"},
                    {call, "C(" + call + ")"},
                });
}

TEST(OutputParserTest, DeepSeekV31) {
  const std::string call = "<｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"s\": \"｜\"}<｜tool▁call▁end｜>";
  ExpectStreams(With(CallSyntax::kDeepSeekV31, ReasoningSyntax::kThink),
                {
                    {"</think><｜tool▁calls▁begin｜>" + call + "<｜tool▁calls▁end｜>",
                     "C(</think>)F0(|f|{\"s\": \"｜\"})"},
                    {"<｜tool▁calls▁begin｜>" + call + call + "<｜tool▁calls▁end｜>",
                     "F0(|f|{\"s\": \"｜\"})F1(|f|{\"s\": \"｜\"})"},
                    {"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{]",
                     "C(<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{])"},
                });
}

TEST(OutputParserTest, DeepSeekDsml) {
  const std::string open = "<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"f\">\n";
  const std::string close = "</｜DSML｜invoke>\n</｜DSML｜function_calls>";
  const std::string text = "<｜DSML｜parameter name=\"n\" string=\"true\">1</｜DSML｜parameter>\n";
  const std::string json =
      "<｜DSML｜parameter name=\"a\" string=\"false\">[1]</｜DSML｜parameter>\n";
  const std::string bad = "<｜DSML｜parameter name=\"a\" string=\"false\">[1</｜DSML｜parameter>\n";
  ExpectStreams(With(CallSyntax::kDeepSeekDsml),
                {{"Hm\n\n" + open + text + json + close, "C(Hm)F0(|f|{\"n\": \"1\", \"a\": [1]})"},
                 {open + close, "F0(|f|{})"},
                 {open + bad + close, "C(" + open + bad + close + ")"}});
}

TEST(OutputParserTest, Kimi) {
  const std::string begin = "<|tool_calls_section_begin|>";
  const std::string call =
      "<|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>"
      "{\"n\":1}<|tool_call_end|>";
  const std::string bare = "<|tool_call_begin|>g:12<|tool_call_argument_begin|>{}<|tool_call_end|>";
  ExpectStreams(
      With(CallSyntax::kKimi),
      {{"a" + begin + call + bare + "<|tool_calls_section_end|>",
        "C(a)F0(functions.f:0|f|{\"n\":1})F1(g:12|g|{})"},
       {begin + "<|tool_calls_section_end|>", "C(" + begin + "<|tool_calls_section_end|>)"},
       {begin + call + begin + bare + "<|tool_calls_section_end|> b",
        "F0(functions.f:0|f|{\"n\":1})F1(g:12|g|{})C( b)"}});
}

TEST(OutputParserTest, Glm) {
  ExpectStreams(With(CallSyntax::kGlm, ReasoningSyntax::kThink),
                {{"<think>t</think>\n<tool_call>f\n<arg_key>s</arg_key>\n<arg_value>1</arg_value>\n"
                  "<arg_key>l</arg_key>\n<arg_value>[1]</arg_value>\n</tool_call>",
                  "R(t)F0(|f|{\"s\": \"1\", \"l\": [1]})"},
                 {"<tool_call>g</tool_call>", "F0(|g|{})"},
                 {"<tool_call>{\"name\": \"f\"}</tool_call>",
                  "C(<tool_call>{\"name\": \"f\"}</tool_call>)"}});
}

TEST(OutputParserTest, MiniMaxJson) {
  ExpectStreams(With(CallSyntax::kMiniMaxJson),
                {{"a\n<tool_calls>\n{\"name\": \"f\", \"arguments\": {\"n\": 1}}\n{\"name\": \"g\","
                  " \"arguments\": {}}\n</tool_calls>",
                  "C(a)F0(|f|{\"n\": 1})F1(|g|{})"},
                 {"<tool_calls></tool_calls>", "C(<tool_calls></tool_calls>)"},
                 {"<tool_calls>{\"name\": \"g\"}\nx", "F0(|g|{})C(\nx)"}});
}

TEST(OutputParserTest, MiniMaxXml) {
  ExpectStreams(
      With(CallSyntax::kMiniMaxXml, ReasoningSyntax::kThink),
      {{"<think>t</think>\n\n<minimax:tool_call>\n<invoke name=\"f\">\n<parameter name=\"s\">a\"b"
        "</parameter>\n<parameter name=\"n\">3</parameter>\n</invoke>\n<invoke name=\"g\"></invoke>"
        "\n</minimax:tool_call>",
        "R(t)F0(|f|{\"s\": \"a\\\"b\", \"n\": 3})F1(|g|{})"},
       {"<minimax:tool_call><invoke name=\"\">", "C(<minimax:tool_call><invoke name=\"\">)"}});
}

TEST(OutputParserTest, LlamaJson) {
  ExpectStreams(
      With(CallSyntax::kLlamaJson),
      {{"\n{\"name\": \"f\", \"parameters\": {\"n\": 1}}; {\"name\": \"g\", \"parameters\": {}}\n",
        "F0(|f|{\"n\": 1})F1(|g|{})"},
       {"{\"type\": \"function\", \"name\": \"f\", \"parameters\": {}}", "F0(|f|{})"},
       {"a<|python_tag|>{\"name\": \"h\", \"parameters\": {}}", "C(a)F0(|h|{})"},
       {"<|python_tag|>print(1)", "C(<|python_tag|>print(1))"},
       {"{\"name\": \"Ann\", \"parameters\": {}}", "C({\"name\": \"Ann\", \"parameters\": {}})"},
       {"{\"name\": \"f\"}", "C({\"name\": \"f\"})"},
       {"{\"answer\": 1}", "C({\"answer\": 1})"},
       {"{\"name\": \"f\", \"parameters\": {}} x", "C({\"name\": \"f\", \"parameters\": {}} x)"},
       {"a {\"name\": \"f\", \"parameters\": {}}", "C(a {\"name\": \"f\", \"parameters\": {}})"}});
}

TEST(OutputParserTest, LlamaPython) {
  ExpectStreams(
      With(CallSyntax::kLlamaPython),
      {{"[f(s='a\\'\\n)', n=-2, b=True, u=None, l=[1, 2.5,], o={'k': \"é\\u00e9\"}), g()]",
        "F0(|f|{\"s\": \"a'\\n)\", \"n\": -2, \"b\": true, \"u\": null, \"l\": [1, 2.5], "
        "\"o\": {\"k\": \"éé\"}})F1(|g|{})"},
       {"hm <|python_start|>[h(a=1)]<|python_end|> ok", "C(hm)F0(|h|{\"a\": 1})C( ok)"},
       {"{\"name\": \"f\", \"parameters\": {}}", "F0(|f|{})"},
       {"[1] says", "C([1] says)"},
       {"[f(1)]", "C([f(1)])"},
       {"[f(n=1 s=2)]", "C([f(n=1 s=2)])"},
       {"[f(n=1, n=2)]", "C([f(n=1, n=2)])"},
       {"[f(s='\\ud800')]", "C([f(s='\\ud800')])"},
       {"[f(s='\\101\\0\\0123\\8')]", "F0(|f|{\"s\": \"A\\u0000\\n3\\\\8\"})"},
       {"[f(s='\\x4')]", "C([f(s='\\x4')])"},
       {"[f(o={1: 2})]", "C([f(o={1: 2})])"},
       {"[f(n=1])", "C([f(n=1]))"},
       {"[f(n=(1))]", "C([f(n=(1))])"},
       {"[f(s='a\nb')]", "C([f(s='a\nb')])"},
       {"[f(), unknown()]", "C([f(), unknown()])"},
       {"[f()] and more", "C([f()] and more)"},
       {"[f()", "C([f())"}});
}

TEST(OutputParserTest, Harmony) {
  ExpectStreams(
      With(CallSyntax::kHarmony),
      {{"<|channel|>analysis<|message|>Hm. <|end|><|start|>assistant<|channel|>final<|message|> "
        "Yes\n",
        "R(Hm. )C( Yes\n)"},
       {"<|channel|>analysis<|message|>t<|end|><|start|>assistant<|channel|>commentary "
        "to=functions.f <|constrain|>json<|message|>{\"n\":1}<|call|>",
        "R(t)F0(|f|{\"n\":1})"},
       {"<|channel|>commentary<|message|>Let me.<|end|><|start|>assistant to=functions.f"
        "<|channel|>commentary json<|message|>{}",
        "C(Let me.<|start|>assistant to=functions.f<|channel|>commentary json<|message|>{})"},
       {" to=functions.f<|channel|>commentary <|constrain|>json<|message|>{}", "F0(|f|{})"},
       {"<|start|>assistant<|channel|>commentary to=functions.g<|message|>{} <|end|>", "F0(|g|{})"},
       {"<|channel|>final<|message|>a<|return|>", "C(a)"},
       {"<|channel|>final <|constrain|>json<|message|>{}", "C({})"},
       {"<|channel|>commentary to=functions.f<|message|>{\"n\":<|call|>",
        "C(<|channel|>commentary to=functions.f<|message|>{\"n\":<|call|>)"},
       {"<|channel|>commentary to=functions.f<|message|>{\"n\":1",
        "C(<|channel|>commentary to=functions.f<|message|>{\"n\":1)"},
       {"<|channel|>other<|message|>x", "C(<|channel|>other<|message|>x)"},
       {"plain", "C(plain)"}});
}

TEST(OutputParserTest, Mistral) {
  ExpectStreams(
      With(CallSyntax::kMistral, ReasoningSyntax::kThinkSquare),
      {{"[THINK]t[/THINK]a[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"n\": 1}, \"id\": "
        "\"abc123def\"}, {\"name\": \"g\", \"arguments\": {}}]",
        "R(t)C(a)F0(abc123def|f|{\"n\": 1})F1(|g|{})"},
       {"[TOOL_CALLS]f[ARGS]{\"n\": 1}[TOOL_CALLS]g[CALL_ID]id9[ARGS]{}",
        "F0(|f|{\"n\": 1})F1(id9|g|{})"},
       {"[TOOL_CALLS][{\"name\": \"f\"}", "C([TOOL_CALLS][{\"name\": \"f\"})"},
       {"[TOOL_CALLS][]", "C([TOOL_CALLS][])"},
       {"[TOOL_CALLS]f {", "C([TOOL_CALLS]f {)"}});
}

TEST(OutputParserTest, TextComesOutAtOnce) {
  const auto parser = OutputParser::Create(With(CallSyntax::kHermes));
  ASSERT_TRUE(parser.ok());
  const auto feed = [&](std::string_view text) {
    std::vector<OutputDelta> merged;
    MergeDeltas((*parser)->Feed(text), &merged);
    return DescribeDeltas(merged);
  };
  EXPECT_EQ(feed("a"), "C(a)");
  EXPECT_EQ(feed(" "), "");
  EXPECT_EQ(feed("<"), "");
  EXPECT_EQ(feed("b"), "C( <b)");
  EXPECT_EQ(feed("<tool_call>"), "");
  EXPECT_EQ(feed("{\"name\": \"f\", \"x"), "");
  EXPECT_EQ(feed("\""), "C(<tool_call>{\"name\": \"f\", \"x\")");
}

TEST(OutputParserTest, LongCallsAndDeepCallsAreText) {
  OutputParserOptions options = With(CallSyntax::kHermes);
  options.call_bytes_max = 64;
  const auto call = [](const std::string& value) {
    return "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": " + value + "}}</tool_call>";
  };
  const size_t around = call("").size();
  const std::string fits = "\"" + std::string(64 - around - 2, 'x') + "\"";
  EXPECT_EQ(Parse(options, {call(fits)}), "F0(|f|{\"a\": " + fits + "})");
  const std::string longer = call("\"" + std::string(64 - around - 1, 'x') + "\"");
  EXPECT_EQ(Parse(options, {longer}), "C(" + longer + ")");

  options = With(CallSyntax::kHermes);
  // Two levels are the call's own.
  const auto nested = [](int depth) {
    return std::string(static_cast<size_t>(depth), '[') +
           std::string(static_cast<size_t>(depth), ']');
  };
  EXPECT_EQ(Parse(options, {call(nested(kCallDepthMax - 2))}),
            "F0(|f|{\"a\": " + nested(kCallDepthMax - 2) + "})");
  const std::string deep = call(nested(kCallDepthMax - 1));
  EXPECT_EQ(Parse(options, {deep}), "C(" + deep + ")");
  const std::string deep_python = "[f(l=" + nested(kCallDepthMax + 1) + ")]";
  EXPECT_EQ(Parse(With(CallSyntax::kLlamaPython), {deep_python}), "C(" + deep_python + ")");
}

TEST(OutputParserTest, LongWhiteSpaceIsNotHeldBack) {
  const std::string space(1000, ' ');
  EXPECT_EQ(Parse(With(CallSyntax::kHermes), {"a" + space + "b"}), "C(a" + space + "b)");
  const auto parser = OutputParser::Create(With(CallSyntax::kHermes));
  ASSERT_TRUE(parser.ok());
  const std::vector<OutputDelta> deltas = (*parser)->Feed(space);
  ASSERT_EQ(deltas.size(), 1u);
  EXPECT_GE(deltas[0].text.size(), space.size() - OutputParser::kSpaceBytesMax);
}

// A megabyte of openings that never close must not be read again and again.
TEST(OutputParserTest, HostileStreamsTakeLinearTime) {
  std::string text;
  while (text.size() < (size_t{3} << 20)) text += "<tool_call><function=f><parameter=s>";
  EXPECT_EQ(Parse(With(CallSyntax::kQwenXml), {text}), "C(" + text + ")");
}

}  // namespace
}  // namespace essor::model
