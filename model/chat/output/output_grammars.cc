// Sources of the markers: the vendors' chat templates and, for DeepSeek V3.2, its Python encoder;
// for Harmony, OpenAI's description of the format.
#include "common/check.h"
#include "model/chat/output/output_grammar.h"

namespace essor::model {
namespace {

using Op = CallOp;
using Action = CallAction;

CallGrammar Hermes() {
  return {.openings = {{"<tool_call>"}},
          .steps = {{Op::kJsonCall, {{"", 1}}},
                    {Op::kExpect, {{"</tool_call>", kBlockEnds, Action::kCallEnds}}}}};
}

CallGrammar QwenXml() {
  return {.openings = {{"<tool_call>"}},
          .steps =
              {
                  {Op::kExpect, {{"<function=", 1}}},
                  {Op::kName, {{">", 2}}},
                  {Op::kExpect, {{"<parameter=", 3}, {"</function>", 5}}},
                  {Op::kKey, {{">", 4}}},
                  {Op::kValue, {{"</parameter>", 2}}},
                  {Op::kExpect, {{"</tool_call>", kBlockEnds, Action::kCallEnds}}},
              },
          .value_on_own_lines = true};
}

CallGrammar DeepSeekV3() {
  return {.openings = {{"<｜tool▁calls▁begin｜>"}},
          .steps = {
              {Op::kExpect, {{"<｜tool▁call▁begin｜>", 1}}},
              {Op::kExpect, {{"function<｜tool▁sep｜>", 2}}},
              {Op::kName, {{"\n```json\n", 3}}},
              {Op::kJsonArguments, {{"", 4}}},
              {Op::kExpect, {{"```", 5}}},
              {Op::kExpect, {{"<｜tool▁call▁end｜>", 6, Action::kCallEnds}}},
              {Op::kExpect, {{"<｜tool▁call▁begin｜>", 1}, {"<｜tool▁calls▁end｜>"}}},
          }};
}

CallGrammar DeepSeekV31() {
  return {.openings = {{"<｜tool▁calls▁begin｜>"}},
          .steps = {
              {Op::kExpect, {{"<｜tool▁call▁begin｜>", 1}}},
              {Op::kName, {{"<｜tool▁sep｜>", 2}}},
              {Op::kJsonArguments, {{"", 3}}},
              {Op::kExpect, {{"<｜tool▁call▁end｜>", 4, Action::kCallEnds}}},
              {Op::kExpect, {{"<｜tool▁call▁begin｜>", 1}, {"<｜tool▁calls▁end｜>"}}},
          }};
}

CallGrammar DeepSeekDsml() {
  return {
      .openings = {{"<｜DSML｜function_calls>"}},
      .steps = {
          {Op::kExpect, {{"<｜DSML｜invoke name=\"", 1}}},
          {Op::kName, {{"\">", 2}}},
          {Op::kExpect,
           {{"<｜DSML｜parameter name=\"", 3}, {"</｜DSML｜invoke>", 6, Action::kCallEnds}}},
          {Op::kKey, {{"\" string=\"", 4}}},
          {Op::kExpect, {{"true\">", 5, Action::kTextValue}, {"false\">", 5, Action::kJsonValue}}},
          {Op::kValue, {{"</｜DSML｜parameter>", 2}}},
          {Op::kExpect, {{"<｜DSML｜invoke name=\"", 1}, {"</｜DSML｜function_calls>"}}},
      }};
}

CallGrammar Kimi() {
  return {.openings = {{"<|tool_calls_section_begin|>"}},
          .steps = {
              {Op::kExpect, {{"<|tool_call_begin|>", 1}}},
              {Op::kNamedId, {{"<|tool_call_argument_begin|>", 2}}},
              {Op::kJsonArguments, {{"", 3}}},
              {Op::kExpect, {{"<|tool_call_end|>", 4, Action::kCallEnds}}},
              {Op::kExpect, {{"<|tool_call_begin|>", 1}, {"<|tool_calls_section_end|>"}}},
          }};
}

CallGrammar Glm() {
  return {.openings = {{"<tool_call>"}},
          .steps = {
              {Op::kName, {{"<arg_key>", 1}, {"</tool_call>", kBlockEnds, Action::kCallEnds}}},
              {Op::kKey, {{"</arg_key>", 2}}},
              {Op::kExpect, {{"<arg_value>", 3}}},
              {Op::kValue, {{"</arg_value>", 4}}},
              {Op::kExpect, {{"<arg_key>", 1}, {"</tool_call>", kBlockEnds, Action::kCallEnds}}},
          }};
}

CallGrammar MiniMaxJson() {
  return {.openings = {{"<tool_calls>"}},
          .steps = {
              {Op::kJsonCall, {{"", 1, Action::kCallEnds}}},
              {.op = Op::kExpect, .branches = {{"</tool_calls>"}}, .otherwise = 0},
          }};
}

CallGrammar MiniMaxXml() {
  return {.openings = {{"<minimax:tool_call>"}},
          .steps = {
              {Op::kExpect, {{"<invoke name=\"", 1}}},
              {Op::kName, {{"\">", 2}}},
              {Op::kExpect, {{"<parameter name=\"", 3}, {"</invoke>", 5, Action::kCallEnds}}},
              {Op::kKey, {{"\">", 4}}},
              {Op::kValue, {{"</parameter>", 2}}},
              {Op::kExpect, {{"<invoke name=\"", 1}, {"</minimax:tool_call>"}}},
          }};
}

CallGrammar LlamaJson() {
  return {.openings = {{"<|python_tag|>"}, {.marker = "{", .bare = true, .part_of_call = true}},
          .steps = {
              {Op::kJsonCall, {{"", 1, Action::kAddCall}}},
              {.op = Op::kExpect, .branches = {{";", 0}}, .may_end = true},
          }};
}

CallGrammar LlamaPython() {
  return {.openings = {{.marker = "<|python_start|>", .step = 0},
                       {.marker = "[", .step = 1, .bare = true},
                       {.marker = "{", .step = 5, .bare = true, .part_of_call = true}},
          .steps = {
              {.op = Op::kExpect, .branches = {{"[", 1}}, .otherwise = 5},
              {Op::kName, {{"(", 2}}},
              {Op::kPythonArguments, {{"", 3, Action::kAddCall}}},
              {Op::kExpect, {{",", 1}, {"]", 4}}},
              {.op = Op::kExpect,
               .branches = {{"<|python_end|>", kBlockEnds, Action::kCommit}},
               .may_end = true},
              {Op::kJsonCall, {{"", 4, Action::kAddCall}}},
          }};
}

// The prompt ends in "<|start|>assistant"; what follows names a channel or a recipient, in either
// order.
CallGrammar Harmony() {
  return {
      .openings = {{.marker = "<|start|>", .step = 0},
                   {.marker = "<|channel|>", .step = 2},
                   {.marker = " to=functions.", .step = 5, .bare = true}},
      .steps = {
          /*0*/ {Op::kExpect, {{"assistant", 1}}},
          /*1*/ {Op::kExpect, {{"<|channel|>", 2}, {"to=functions.", 5}}},
          /*2*/ {Op::kExpect, {{"analysis", 3}, {"commentary", 4}, {"final", 11}}},
          /*3*/
          {Op::kExpect,
           {{"<|message|>", kBlockEnds, Action::kBeginReasoning}, {"to=functions.", 5}}},
          /*4*/
          {Op::kExpect, {{"<|message|>", kBlockEnds, Action::kBeginContent}, {"to=functions.", 5}}},
          /*5*/
          {Op::kName, {{"<|message|>", 9}, {"<|constrain|>", 8}, {"<|channel|>", 6}}},
          /*6*/ {Op::kExpect, {{"commentary", 7}, {"analysis", 7}}},
          /*7*/ {Op::kExpect, {{"<|constrain|>", 8}, {"<|message|>", 9}}},
          /*8*/ {Op::kExpect, {{"json<|message|>", 9}}},
          /*9*/ {Op::kJsonArguments, {{"", 10, Action::kAddCall}}},
          /*10*/
          {.op = Op::kExpect,
           .branches = {{"<|call|>", kBlockEnds, Action::kCommit},
                        {"<|end|>", kBlockEnds, Action::kCommit}},
           .may_end = true},
          /*11*/
          {Op::kExpect,
           {{"<|message|>", kBlockEnds, Action::kBeginContent}, {"<|constrain|>", 12}}},
          /*12*/ {Op::kExpect, {{"json<|message|>", kBlockEnds, Action::kBeginContent}}},
      },
      .message_ends = {"<|end|>", "<|return|>", "<|call|>"}};
}

CallGrammar Mistral() {
  return {.openings = {{"[TOOL_CALLS]"}},
          .steps = {
              {.op = Op::kExpect, .branches = {{"[", 1}}, .otherwise = 3},
              {Op::kJsonCall, {{"", 2, Action::kAddCall}}},
              {Op::kExpect, {{",", 1}, {"]", kBlockEnds, Action::kCommit}}},
              {Op::kName, {{"[ARGS]", 5}, {"[CALL_ID]", 4}}},
              {Op::kId, {{"[ARGS]", 5}}},
              {Op::kJsonArguments, {{"", kBlockEnds, Action::kCallEnds}}},
          }};
}

CallGrammar MakeGrammar(CallSyntax syntax) {
  switch (syntax) {
    case CallSyntax::kNone:
      return {};
    case CallSyntax::kHermes:
      return Hermes();
    case CallSyntax::kQwenXml:
      return QwenXml();
    case CallSyntax::kDeepSeekV3:
      return DeepSeekV3();
    case CallSyntax::kDeepSeekV31:
      return DeepSeekV31();
    case CallSyntax::kDeepSeekDsml:
      return DeepSeekDsml();
    case CallSyntax::kKimi:
      return Kimi();
    case CallSyntax::kGlm:
      return Glm();
    case CallSyntax::kMiniMaxJson:
      return MiniMaxJson();
    case CallSyntax::kMiniMaxXml:
      return MiniMaxXml();
    case CallSyntax::kLlamaJson:
      return LlamaJson();
    case CallSyntax::kLlamaPython:
      return LlamaPython();
    case CallSyntax::kHarmony:
      return Harmony();
    case CallSyntax::kMistral:
      return Mistral();
  }
  ESSOR_CHECK(false && "a CallSyntax outside its enum");
}

constexpr int kCallSyntaxes = static_cast<int>(CallSyntax::kMistral) + 1;

std::vector<CallGrammar> MakeGrammars() {
  std::vector<CallGrammar> grammars;
  for (int i = 0; i < kCallSyntaxes; ++i) {
    grammars.push_back(MakeGrammar(static_cast<CallSyntax>(i)));
  }
  return grammars;
}

}  // namespace

const CallGrammar& GrammarOf(CallSyntax syntax) {
  static const std::vector<CallGrammar>& grammars = *new std::vector<CallGrammar>(MakeGrammars());
  return grammars[static_cast<size_t>(syntax)];
}

ReasoningMarkers MarkersOf(ReasoningSyntax syntax) {
  switch (syntax) {
    case ReasoningSyntax::kNone:
      return {};
    case ReasoningSyntax::kThink:
      return {"<think>", "</think>"};
    case ReasoningSyntax::kThinkSquare:
      return {"[THINK]", "[/THINK]"};
  }
  ESSOR_CHECK(false && "a ReasoningSyntax outside its enum");
}

}  // namespace essor::model
