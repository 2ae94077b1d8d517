#include "model/chat/output/output_syntax.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "model/chat/output/output_grammar.h"

namespace essor::model {
namespace {

using ::testing::HasSubstr;

constexpr auto kLastCalls = static_cast<int>(CallSyntax::kMistral);
constexpr auto kLastReasoning = static_cast<int>(ReasoningSyntax::kThinkSquare);

TEST(OutputSyntaxTest, NamesComeBack) {
  for (int i = 0; i <= kLastCalls; ++i) {
    const auto syntax = static_cast<CallSyntax>(i);
    const auto named = CallSyntaxNamed(NameOf(syntax));
    ASSERT_TRUE(named.ok()) << named.status();
    EXPECT_EQ(*named, syntax);
  }
  for (int i = 0; i <= kLastReasoning; ++i) {
    const auto syntax = static_cast<ReasoningSyntax>(i);
    const auto named = ReasoningSyntaxNamed(NameOf(syntax));
    ASSERT_TRUE(named.ok()) << named.status();
    EXPECT_EQ(*named, syntax);
  }
}

TEST(OutputSyntaxTest, UnknownNamesListTheKnownOnes) {
  const absl::Status calls = CallSyntaxNamed("hermit").status();
  EXPECT_EQ(calls.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(calls.message()), HasSubstr("no tool call syntax named 'hermit'"));
  EXPECT_THAT(std::string(calls.message()), HasSubstr("hermes, qwen_xml"));
  const absl::Status reasoning = ReasoningSyntaxNamed("").status();
  EXPECT_THAT(std::string(reasoning.message()), HasSubstr("known: none, think, think_square"));
}

TEST(OutputSyntaxTest, GrammarsAreConsistent) {
  for (int i = 0; i <= kLastCalls; ++i) {
    const CallGrammar& grammar = GrammarOf(static_cast<CallSyntax>(i));
    const int steps = static_cast<int>(grammar.steps.size());
    for (const Opening& opening : grammar.openings) {
      EXPECT_FALSE(opening.marker.empty());
      EXPECT_LE(opening.marker.size(), kMarkerBytesMax);
      EXPECT_LT(opening.step, steps) << i;
    }
    for (const CallStep& step : grammar.steps) {
      EXPECT_LT(step.otherwise, steps) << i;
      for (const CallBranch& a : step.branches) {
        EXPECT_LT(a.next, steps) << i;
        EXPECT_LE(a.marker.size(), kMarkerBytesMax);
        for (const CallBranch& b : step.branches) {
          // Otherwise the shorter one would always win.
          EXPECT_TRUE(&a == &b || !b.marker.starts_with(a.marker)) << a.marker;
        }
      }
    }
  }
}

TEST(OutputSyntaxTest, DetectsByTemplateThenByFamily) {
  struct Case {
    const char* family;
    const char* chat_template;
    CallSyntax calls;
    ReasoningSyntax reasoning;
  };
  using C = CallSyntax;
  using R = ReasoningSyntax;
  const Case cases[] = {
      {"qwen2", "{{ '<tool_call>\\n' }}", C::kHermes, R::kNone},
      {"qwen3", "'<tool_call>' ... '</think>'", C::kHermes, R::kThink},
      {"qwen3_moe", "<tool_call>\\n<function=' + name", C::kQwenXml, R::kNone},
      {"deepseek_v3", "'<｜tool▁calls▁begin｜>' ... '```json'", C::kDeepSeekV3, R::kNone},
      {"deepseek_v3", "'<｜tool▁calls▁begin｜>' '</think>'", C::kDeepSeekV31, R::kThink},
      {"deepseek_v32", "", C::kDeepSeekDsml, R::kThink},
      {"kimi_k2", "<|tool_calls_section_begin|>", C::kKimi, R::kNone},
      {"kimi_k2", "", C::kKimi, R::kNone},
      {"glm4_moe", "<tool_call> <arg_key> <think>", C::kGlm, R::kThink},
      {"minimax_m1", "<tool_calls>", C::kMiniMaxJson, R::kNone},
      {"minimax_m2", "'<minimax:tool_call>' <think>", C::kMiniMaxXml, R::kThink},
      {"ernie4_5_moe", "<tool_call> <think>", C::kHermes, R::kThink},
      {"llama", "<|python_tag|>", C::kLlamaJson, R::kNone},
      {"llama4", "<|python_start|>", C::kLlamaPython, R::kNone},
      {"llama", "no calls here", C::kNone, R::kNone},
      {"gpt_oss", "<|channel|>final<|message|>", C::kHarmony, R::kNone},
      {"mistral", "[TOOL_CALLS] [THINK]", C::kMistral, R::kThinkSquare},
      {"unknown", "", C::kNone, R::kNone},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(DetectOutputSyntax(c.family, c.chat_template),
              (OutputSyntax{.calls = c.calls, .reasoning = c.reasoning}))
        << c.family << ": " << c.chat_template;
  }
}

TEST(OutputSyntaxTest, PromptsThatEndInTheMarkerOpenReasoning) {
  EXPECT_TRUE(PromptOpensReasoning(ReasoningSyntax::kThink, "<|im_start|>assistant\n<think>\n"));
  EXPECT_TRUE(PromptOpensReasoning(ReasoningSyntax::kThinkSquare, "[THINK]"));
  EXPECT_FALSE(PromptOpensReasoning(ReasoningSyntax::kThink, "<think>\n\n</think>\n\n"));
  EXPECT_FALSE(PromptOpensReasoning(ReasoningSyntax::kThink, "what is <think>?\n"));
  EXPECT_FALSE(PromptOpensReasoning(ReasoningSyntax::kThink, ""));
  EXPECT_FALSE(PromptOpensReasoning(ReasoningSyntax::kNone, "<think>"));
}

}  // namespace
}  // namespace essor::model
