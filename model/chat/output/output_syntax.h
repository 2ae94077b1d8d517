// How a model writes its reasoning and its tool calls: which syntax, and how to find out.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"

namespace essor::model {

// The syntaxes of tool calls. The comment shows one call; output_grammars.cc has the rules.
enum class CallSyntax {
  kNone,
  kHermes,       // <tool_call>{"name": N, "arguments": {}}</tool_call>: Qwen2.5, Qwen3, QwQ, ERNIE
  kQwenXml,      // <tool_call><function=N><parameter=K>V</parameter></function></tool_call>
  kDeepSeekV3,   // <｜tool▁call▁begin｜>function<｜tool▁sep｜>N + JSON in a fence: V3, R1
  kDeepSeekV31,  // <｜tool▁call▁begin｜>N<｜tool▁sep｜>{}
  kDeepSeekDsml,  // <｜DSML｜invoke name="N"><｜DSML｜parameter name="K" string="true">V: V3.2
  kKimi,          // <|tool_call_begin|>functions.N:0<|tool_call_argument_begin|>{}
  kGlm,           // <tool_call>N<arg_key>K</arg_key><arg_value>V</arg_value></tool_call>
  kMiniMaxJson,   // <tool_calls> one JSON object a line </tool_calls>: Text-01, M1
  kMiniMaxXml,    // <minimax:tool_call><invoke name="N"><parameter name="K">V: M2
  kLlamaJson,     // {"name": N, "parameters": {}}, alone or behind <|python_tag|>: Llama 3.x
  kLlamaPython,   // [N(k=v), ...], alone or inside <|python_start|>: Llama 4
  kHarmony,       // messages in channels, reasoning included: gpt-oss
  kMistral,       // [TOOL_CALLS][{"name": N, "arguments": {}}] or [TOOL_CALLS]N[ARGS]{}
};

enum class ReasoningSyntax {
  kNone,
  kThink,        // <think>...</think>
  kThinkSquare,  // [THINK]...[/THINK]: Magistral
};

struct OutputSyntax {
  CallSyntax calls = CallSyntax::kNone;
  ReasoningSyntax reasoning = ReasoningSyntax::kNone;

  bool operator==(const OutputSyntax&) const = default;
};

// "none", "hermes", "qwen_xml", "deepseek_v3", "deepseek_v31", "deepseek_dsml", "kimi", "glm",
// "minimax_json", "minimax_xml", "llama_json", "llama_python", "harmony", "mistral".
std::string_view NameOf(CallSyntax syntax);
// "none", "think", "think_square".
std::string_view NameOf(ReasoningSyntax syntax);
// InvalidArgument that lists the known names.
absl::StatusOr<CallSyntax> CallSyntaxNamed(std::string_view name);
absl::StatusOr<ReasoningSyntax> ReasoningSyntaxNamed(std::string_view name);

// The syntax of a model from the markers its chat template writes into earlier turns; where there
// is no template or it shows no calls, from the family (config.json's model_type).
OutputSyntax DetectOutputSyntax(std::string_view family, std::string_view chat_template);

// Whether a rendered prompt ends inside reasoning, so that the answer begins there and holds only
// the closing marker.
bool PromptOpensReasoning(ReasoningSyntax syntax, std::string_view prompt);

}  // namespace essor::model
