#include "model/chat/output/output_syntax.h"

#include <array>
#include <span>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/chat/output/output_grammar.h"

namespace essor::model {
namespace {

template <typename T>
struct Named {
  std::string_view name;
  T value;
};

// In the order of the enums.
constexpr std::array kCallNames = {
    Named<CallSyntax>{"none", CallSyntax::kNone},
    Named<CallSyntax>{"hermes", CallSyntax::kHermes},
    Named<CallSyntax>{"qwen_xml", CallSyntax::kQwenXml},
    Named<CallSyntax>{"deepseek_v3", CallSyntax::kDeepSeekV3},
    Named<CallSyntax>{"deepseek_v31", CallSyntax::kDeepSeekV31},
    Named<CallSyntax>{"deepseek_dsml", CallSyntax::kDeepSeekDsml},
    Named<CallSyntax>{"kimi", CallSyntax::kKimi},
    Named<CallSyntax>{"glm", CallSyntax::kGlm},
    Named<CallSyntax>{"minimax_json", CallSyntax::kMiniMaxJson},
    Named<CallSyntax>{"minimax_xml", CallSyntax::kMiniMaxXml},
    Named<CallSyntax>{"llama_json", CallSyntax::kLlamaJson},
    Named<CallSyntax>{"llama_python", CallSyntax::kLlamaPython},
    Named<CallSyntax>{"harmony", CallSyntax::kHarmony},
    Named<CallSyntax>{"mistral", CallSyntax::kMistral},
};
constexpr std::array kReasoningNames = {
    Named<ReasoningSyntax>{"none", ReasoningSyntax::kNone},
    Named<ReasoningSyntax>{"think", ReasoningSyntax::kThink},
    Named<ReasoningSyntax>{"think_square", ReasoningSyntax::kThinkSquare},
};

template <typename T>
absl::StatusOr<T> ValueNamed(std::span<const Named<T>> table, std::string_view name,
                             const char* what) {
  std::string known;
  for (const Named<T>& entry : table) {
    if (entry.name == name) return entry.value;
    absl::StrAppend(&known, known.empty() ? "" : ", ", std::string(entry.name));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("no ", what, " syntax named '", std::string(name), "'; known: ", known));
}

// What a template writes in earlier calls. The first row whose texts are all there decides:
// markers that contain others' markers come first.
struct TemplateMark {
  CallSyntax syntax;
  std::string_view text;
  std::string_view and_text = "";
};
constexpr TemplateMark kTemplateMarks[] = {
    {CallSyntax::kHarmony, "<|channel|>", "<|message|>"},
    {CallSyntax::kDeepSeekDsml, "<｜DSML｜"},
    {CallSyntax::kDeepSeekV3, "<｜tool▁calls▁begin｜>", "```json"},
    {CallSyntax::kDeepSeekV31, "<｜tool▁calls▁begin｜>"},
    {CallSyntax::kKimi, "<|tool_calls_section_begin|>"},
    {CallSyntax::kMiniMaxXml, "<minimax:tool_call>"},
    {CallSyntax::kGlm, "<arg_key>"},
    {CallSyntax::kQwenXml, "<function=", "<tool_call>"},
    {CallSyntax::kMiniMaxJson, "<tool_calls>"},
    {CallSyntax::kHermes, "<tool_call>"},
    {CallSyntax::kMistral, "[TOOL_CALLS]"},
    {CallSyntax::kLlamaPython, "<|python_start|>"},
    {CallSyntax::kLlamaJson, "<|python_tag|>"},
    {CallSyntax::kLlamaJson, "\"parameters\": dictionary of argument name"},
};

// Families whose models all write calls in one way.
constexpr std::pair<std::string_view, CallSyntax> kFamilies[] = {
    {"deepseek_v32", CallSyntax::kDeepSeekDsml},
    {"glm4_moe", CallSyntax::kGlm},
    {"gpt_oss", CallSyntax::kHarmony},
    {"kimi_k2", CallSyntax::kKimi},
    {"kimi_k25", CallSyntax::kKimi},
    {"minimax_m2", CallSyntax::kMiniMaxXml},
};

CallSyntax DetectCalls(std::string_view family, std::string_view chat_template) {
  for (const TemplateMark& mark : kTemplateMarks) {
    if (chat_template.find(mark.text) != std::string_view::npos &&
        chat_template.find(mark.and_text) != std::string_view::npos) {
      return mark.syntax;
    }
  }
  for (const auto& [name, syntax] : kFamilies) {
    if (name == family) return syntax;
  }
  return CallSyntax::kNone;
}

ReasoningSyntax DetectReasoning(CallSyntax calls, std::string_view chat_template) {
  if (calls == CallSyntax::kHarmony) return ReasoningSyntax::kNone;
  if (chat_template.find("[THINK]") != std::string_view::npos) {
    return ReasoningSyntax::kThinkSquare;
  }
  const bool thinks = chat_template.find("<think>") != std::string_view::npos ||
                      chat_template.find("</think>") != std::string_view::npos;
  // DeepSeek V3.2 has no template to look into.
  const bool encoder = calls == CallSyntax::kDeepSeekDsml;
  return thinks || encoder ? ReasoningSyntax::kThink : ReasoningSyntax::kNone;
}

}  // namespace

std::string_view NameOf(CallSyntax syntax) { return kCallNames[static_cast<size_t>(syntax)].name; }

std::string_view NameOf(ReasoningSyntax syntax) {
  return kReasoningNames[static_cast<size_t>(syntax)].name;
}

absl::StatusOr<CallSyntax> CallSyntaxNamed(std::string_view name) {
  return ValueNamed<CallSyntax>(kCallNames, name, "tool call");
}

absl::StatusOr<ReasoningSyntax> ReasoningSyntaxNamed(std::string_view name) {
  return ValueNamed<ReasoningSyntax>(kReasoningNames, name, "reasoning");
}

OutputSyntax DetectOutputSyntax(std::string_view family, std::string_view chat_template) {
  const CallSyntax calls = DetectCalls(family, chat_template);
  return {.calls = calls, .reasoning = DetectReasoning(calls, chat_template)};
}

bool PromptOpensReasoning(ReasoningSyntax syntax, std::string_view prompt) {
  const ReasoningMarkers markers = MarkersOf(syntax);
  if (markers.open.empty()) return false;
  const size_t end = prompt.find_last_not_of(" \t\r\n");
  return end != std::string_view::npos && prompt.substr(0, end + 1).ends_with(markers.open);
}

}  // namespace essor::model
