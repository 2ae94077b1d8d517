#include "model/chat/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_format.h"

namespace essor::model {
namespace {

using ::testing::HasSubstr;

constexpr char kMessages[] = R"([{"role": "user", "content": "Hi"}])";

absl::StatusOr<std::string> Render(const std::string& source, const ChatInput& input) {
  const auto parsed = ChatTemplate::Parse(source, {.bos_token = "<s>"});
  if (!parsed.ok()) return parsed.status();
  return (*parsed)->Render(input);
}

absl::StatusOr<std::string> Render(const std::string& source, const std::string& kwargs = "{}") {
  return Render(source, ChatInput{.messages_json = kMessages, .kwargs_json = kwargs});
}

void ExpectText(const std::string& source, const std::string& expected,
                const std::string& kwargs = "{}") {
  const absl::StatusOr<std::string> text = Render(source, kwargs);
  ASSERT_TRUE(text.ok()) << source << ": " << text.status();
  EXPECT_EQ(*text, expected) << source;
}

void ExpectError(const std::string& source, const std::string& message,
                 const std::string& kwargs = "{}") {
  const absl::Status status = Render(source, kwargs).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << source.substr(0, 200);
  EXPECT_THAT(std::string(status.message()), HasSubstr(message)) << source.substr(0, 200);
}

TEST(ChatTemplateTest, SyntaxErrorsNameTheLine) {
  ExpectError("a\nb {{ 1 + }}", "template line 2: unexpected '}}'");
  ExpectError("\n\n{% if x %}", "template line 3: 'if' is not closed: expected 'elif' or 'else'");
  ExpectError("{% frobnicate %}", "template line 1: unknown tag 'frobnicate'");
  ExpectError("{% include 'x' %}", "unknown tag 'include'");
  ExpectError("{% endif %}", "unknown tag 'endif'");
  ExpectError("{{ x | nofilter }}", "no filter named 'nofilter'");
  ExpectError("{{ x is notest }}", "no test named 'notest'");
  ExpectError("{{ 'abc }}", "template line 1: string without an end");
  ExpectError("{{ a ", "unexpected end of template");
  ExpectError("x\n{# c", "template line 2: missing end of comment");
  ExpectError("{% raw %}x", "missing end of raw block");
  ExpectError("{{ (1] }}", "unexpected ']'");
  ExpectError("{{ ? }}", "unexpected character '?'");
  ExpectError("{{ f(**x, 1) }}", "template line 1: unexpected a number");
  ExpectError("{{ f(a=1, 2) }}", "positional argument behind a keyword argument");
  ExpectError("{% break %}", "'break' outside of a loop");
  ExpectError("{% for x in y %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}",
              "'break' outside of a loop");
  ExpectError("{% set true = 1 %}", "cannot assign to 'true'");
  ExpectError("{% macro m(a=1, b) %}{% endmacro %}", "parameter without a default");
  ExpectError("{% call x %}{% endcall %}", "'call' needs the call of a macro");
  ExpectError("{{ '\\xzz' }}", "bad hexadecimal escape");
  ExpectError("{{ '\\ud800' }}", "escape in a string is not a character");
  ExpectError("{{ 007 }}", "an integer cannot begin with 0");
}

TEST(ChatTemplateTest, RunTimeErrorsNameTheLine) {
  ExpectError("\n{{ missing.name }}", "template line 2: 'missing' is undefined");
  ExpectError("{{ messages[0].x.y }}", "'dict object' has no attribute 'x'");
  ExpectError("a\n{%- for a, b in [[1]] %}{% endfor %}",
              "template line 2: not enough values to unpack (expected 2)");
  ExpectError("{{ 'a' + 1 }}", "can only concatenate str (not \"int\") to str");
  ExpectError("{{ 1 + 'a' }}", "unsupported operand type(s) for +: 'int' and 'str'");
  ExpectError("{{ 1 < 'a' }}", "'<' not supported between instances of 'int' and 'str'");
  ExpectError("{{ 1 // 0 }}", "integer division or modulo by zero");
  ExpectError("{{ none() }}", "'NoneType' object is not callable");
  ExpectError("{{ messages.append(1) }}",
              "access to attribute 'append' of 'list' object is unsafe");
  ExpectError("{{ 'a'.__class__() }}", "access to attribute '__class__' of 'str' object is unsafe");
  ExpectError("{% set x.y = 1 %}", "cannot assign attribute on non-namespace object");
  ExpectError("{{ {[1]: 2} }}", "unhashable type: 'list'");
  ExpectError("{{ 'a'.split('') }}", "empty separator");
  ExpectError("{{ [1, 'a'] | sort }}", "'<' not supported");
  ExpectError("{{ range | tojson }}", "is not JSON serializable");
  ExpectError("{% macro m(a) %}{% endmacro %}{{ m(b=1) }}",
              "macro 'm' takes no keyword argument 'b'");
}

TEST(ChatTemplateTest, RaiseExceptionGivesTheTemplatesOwnMessage) {
  const absl::Status status = Render("a\n{{ raise_exception('Roles must alternate!') }}").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "Roles must alternate!");
}

TEST(ChatTemplateTest, RefusesMalformedInput) {
  const auto expect = [](ChatInput input, const char* message) {
    const absl::Status status = Render("{{ messages | length }}", input).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << message;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  };
  expect({.messages_json = ""}, "messages: ");
  expect({.messages_json = "[{"}, "messages: ");
  expect({.messages_json = "[1,]"}, "messages: ");
  expect({.messages_json = "[] x"}, "messages: ");
  expect({.messages_json = "[nuhl]"}, "messages: ");
  expect({.messages_json = R"([{"role": truth}])"}, "messages: ");
  for (const char* number : {"1-2-3-4-5-6-7-8-9-0-1-2", "0000000000000000000001", "-", "1.", "1e",
                             "0x1", "123456789012345678901234567890-"}) {
    expect({.messages_json = absl::StrFormat(R"([{"role": "user", "content": %s}])", number)},
           "messages: ");
  }
  expect({.messages_json = "{}"}, "messages: not an array");
  expect({.messages_json = "[1]"}, "messages[0]: not an object");
  expect({.messages_json = R"([{"content": "x"}])"}, "messages[0].role: missing or not a string");
  expect({.messages_json = "[{\"role\": \"\xff\"}]"}, "messages: ");
  expect({.messages_json = R"([{"role": "\ud800"}])"}, "messages: ");
  expect({.messages_json = kMessages, .tools_json = "{}"}, "tools: not an array");
  expect({.messages_json = kMessages, .kwargs_json = "[]"}, "chat_template_kwargs: not an object");
  expect({.messages_json = kMessages, .kwargs_json = R"({"messages": []})"},
         "chat_template_kwargs.messages: given elsewhere");
  std::string deep = "[{\"role\":\"x\",\"content\":";
  expect({.messages_json = deep + std::string(5000, '[') + std::string(5000, ']') + "}]"},
         "messages: ");
}

TEST(ChatTemplateTest, LimitsSourceAndNesting) {
  ExpectError(std::string(kTemplateBytesMax + 1, 'x'), "the limit is 1048576");
  ExpectError("\xff", "chat template is not valid UTF-8");
  const std::string open(5000, '(');
  ExpectError("{{ " + open + "1" + std::string(5000, ')') + " }}", "expression nested too deep");
  ExpectError("{{ " + std::string(100000, '[') + std::string(100000, ']') + " }}",
              "expression nested too deep");
  ExpectError("{{ " + std::string(100000, '-') + "1 }}", "nested too deep");
  std::string text = "{{ 1";
  for (int i = 0; i < 100000; ++i) text += "+1";
  ExpectError(text + " }}", "expression nested too deep");
  text = "{{ x";
  for (int i = 0; i < 100000; ++i) text += ".y";
  ExpectError(text + " }}", "expression nested too deep");
  text = "{{ x";
  for (int i = 0; i < 100000; ++i) text += "|e";
  ExpectError(text + " }}", "expression nested too deep");
  text.clear();
  for (int i = 0; i < 50000; ++i) text += "{% if 1 %}";
  ExpectError(text, "blocks nested too deep");
  text = "{{ 1 if 1";
  for (int i = 0; i < 20000; ++i) text += " else 2 if 1";
  ExpectError(text + " }}", "nested too deep");
  text =
      "{% for " + std::string(50000, '(') + "x" + std::string(50000, ')') + " in y %}{% endfor %}";
  ExpectError(text, "target nested too deep");
}

TEST(ChatTemplateTest, LimitsSteps) {
  ExpectError(
      "{% for a in range(100000) %}{% for b in range(100000) %}{{ a }}{% endfor %}{% endfor %}",
      "rendering takes more than");
  ExpectError("{% for i in range(1000000) %}{% endfor %}", "Range too big");
  ExpectError("{{ [0] * 1000000000 }}", "rendering takes more than");
  ExpectError(
      "{% set ns = namespace(l=[1]) %}{% for i in range(100) %}"
      "{% set ns.l = ns.l + ns.l %}{% endfor %}",
      "rendering takes more than");
}

TEST(ChatTemplateTest, LimitsText) {
  ExpectError("{{ 'x' * 9000000000000 }}", "bytes of text");
  ExpectError(
      "{% set ns = namespace(s='x') %}{% for i in range(100) %}"
      "{% set ns.s = ns.s + ns.s %}{% endfor %}",
      "a value of more than");
  ExpectError("{% for i in range(10000) %}{{ 'x' * 10000 }}{% endfor %}",
              "more than 67108864 bytes of output");
  ExpectError("{{ ('x' * 1000000).replace('x', 'y' * 1000000) }}", "bytes of text");
  ExpectError("{{ 'x'.center(100000000000) }}", "bytes of text");
  ExpectError("{{ '%1000000000d' % 1 }}", "format wider than 10000 characters");
  ExpectError("{{ [1] | tojson(indent=1000000000) }}", "indented by over 100");
}

TEST(ChatTemplateTest, LimitsRecursionAndSharedValues) {
  ExpectError("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion deeper than");
  ExpectError(
      "{% set ns = namespace(l=[]) %}{% for i in range(1000) %}"
      "{% set ns.l = [ns.l] %}{% endfor %}",
      "values nested deeper than 200");
  // Doubling by sharing: 2^60 items that take no memory, until something walks them.
  ExpectError(
      "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}"
      "{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}",
      "a value of more than");
  ExpectError("{% for x in [[1]] recursive %}{{ loop([x]) }}{% endfor %}", "recursion deeper than");
}

TEST(ChatTemplateTest, SurvivesReferenceCycles) {
  // The address sanitizer would report what these leak or leave dangling.
  ExpectText(
      "{% set ns = namespace() %}{% set ns.me = ns %}{% set ns.l = [ns] %}"
      "{{ ns.me.me.l | length }}",
      "1");
  ExpectText(
      "{% set ns = namespace() %}{% for x in [1] %}{% macro m() %}{{ x }}{% endmacro %}"
      "{% set ns.m = m %}{% set ns.loop = loop %}{% endfor %}"
      "{{ (ns.m)() }}{{ ns.loop.index }}",
      "11");
  ExpectText(
      "{% set ns = namespace() %}{% macro outer(v) %}{% for x in [v] recursive %}"
      "{% if x is iterable %}{% set ns.again = loop %}{% endif %}{% endfor %}{% endmacro %}"
      "{{ outer([1]) }}{{ (ns.again)([2]) }}",
      "");
  ExpectText("{% for x in [1, 2] %}{{ loop.changed([loop]) }}{% endfor %}", "TrueTrue");
}

TEST(ChatTemplateTest, KeepsIntegersOfAnySize) {
  const std::string kwargs = R"({"n": 123456789012345678901234567890, "m": -9223372036854775809,
                                 "z": 18446744073709551615})";
  ExpectText("{{ n }} {{ [m] }} {{ z | tojson }} {{ n > m }} {{ n == n }} {{ -m }}",
             "123456789012345678901234567890 [-9223372036854775809] 18446744073709551615 True True "
             "9223372036854775809",
             kwargs);
  ExpectError("{{ n + 1 }}", "integers beyond 64 bits support no arithmetic", kwargs);
  ExpectError("{{ 9223372036854775807 + 1 }}", "integers beyond 64 bits support no arithmetic");
  ExpectError("{{ -9223372036854775807 - 2 }}", "integers beyond 64 bits");
  ExpectError("{{ 2 ** 64 }}", "integers beyond 64 bits");
  ExpectText("{{ (-9223372036854775807 - 1) // -1 if false else 5 }}", "5");
  ExpectError("{{ (-9223372036854775807 - 1) // -1 }}", "integers beyond 64 bits");
  ExpectText("{{ (-9223372036854775807 - 1) % -1 }}", "0");
}

TEST(ChatTemplateTest, SpreadsListsAndDictsOverArguments) {
  ExpectText(
      "{% macro m(a, b, c=3) %}{{ a }}{{ b }}{{ c }}{% endmacro %}"
      "{{ m(*[1, 2]) }} {{ m(1, *[2], **{'c': 4}) }} {{ dict(**{'k': 1}) }}",
      "123 124 {'k': 1}");
  ExpectError("{{ range(*1) }}", "'int' object is not iterable");
  ExpectError("{{ range(**[1]) }}", "argument after ** must be a mapping");
}

TEST(ChatTemplateTest, TellsGeneratorsFromLists) {
  ExpectText("{{ 'yes' if messages | selectattr('nothing') else 'no' }}", "yes");
  ExpectText("{{ 'yes' if messages | selectattr('nothing') | list else 'no' }}", "no");
  ExpectError("{{ (messages | map(attribute='role')) | length }}",
              "object of type 'generator' has no len()");
}

TEST(ChatTemplateTest, StrftimeNowSeesTheGivenTime) {
  ChatInput input{.messages_json = kMessages};
  input.now = absl::FromUnixSeconds(1700000000);  // 2023-11-14 22:13:20 UTC, a Tuesday
  EXPECT_EQ(*Render("{{ strftime_now('%d %b %Y %H:%M:%S %A %%') }}", input),
            "14 Nov 2023 22:13:20 Tuesday %");
}

TEST(ChatTemplateTest, ToolsAndDocumentsAreNoneWithoutAny) {
  ExpectText("{{ tools is none }}{{ documents is none }}{{ bos_token }}{{ eos_token is defined }}",
             "TrueTrue<s>False");
  EXPECT_EQ(
      *Render("{{ tools | length }}", ChatInput{.messages_json = kMessages, .tools_json = "[{}]"}),
      "1");
}

TEST(ChatTemplateTest, NullsStayAndReasoningHasBothNames) {
  const std::string messages =
      R"([{"role": "a", "content": null}, {"role": "b", "reasoning": "r"}])";
  EXPECT_EQ(*Render("{{ messages[0].content is none }}{{ messages[1].thinking }}"
                    "{{ messages[1].reasoning_content }}{{ messages[1] | list }}",
                    ChatInput{.messages_json = messages}),
            "Truerr['thinking', 'role', 'reasoning', 'reasoning_content']");
}

}  // namespace
}  // namespace essor::model
