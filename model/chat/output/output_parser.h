// Splits a model's answer, as it is generated, into reasoning, content and tool calls.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/chat/output/call_parser.h"
#include "model/chat/output/output_syntax.h"

namespace essor::model {

// How long a call (with what the syntax puts around it) may be before it counts as text.
inline constexpr size_t kCallBytesMax = size_t{1} << 20;

struct OutputDelta {
  enum class Kind {
    kReasoning,      // text
    kContent,        // text
    kCallBegin,      // call_index, call_id, call_name
    kCallArguments,  // call_index; text: the next part of the arguments' JSON
    kCallEnd,        // call_index
  };
  Kind kind = Kind::kContent;
  std::string text = {};
  int call_index = 0;        // counts the answer's calls from 0
  std::string call_id = {};  // as the model wrote it; empty where the syntax has none
  std::string call_name = {};

  bool operator==(const OutputDelta&) const = default;
};

struct OutputParserOptions {
  OutputSyntax syntax = {};
  // The request's tools (see ToolSchemas::Parse); they give arguments their types.
  std::string tools_json = {};
  // False where the request has no tools or forbids them: calls stay text. Harmony's messages are
  // told apart all the same.
  bool calls = true;
  // The answer begins inside reasoning (PromptOpensReasoning()).
  bool begins_in_reasoning = false;
  size_t call_bytes_max = kCallBytesMax;
};

// One answer. Feed() in order, then Finish() once. The text is the answer's with its special tokens
// written out, except the one that ended generation.
//
// What comes out, put together, does not depend on how the text was cut. Every byte comes out once,
// in order, as reasoning, content or part of a call, except
//  * the markers of well-formed calls, of reasoning and of Harmony's messages,
//  * white space directly before a call or message, between calls and behind the last one at the
//  end of the
//    answer, and at the beginning and end of <think> reasoning and before the content behind it.
// Reasoning is recognised only where the answer begins, and calls only outside of it.
//
// A call comes out when its closing marker has come, whole: only then is it known that it is not
// malformed. A malformed call, one longer than call_bytes_max, one nested deeper than kCallDepthMax
// and one the answer breaks off in come out as content, markers included. Text is held back only
// while it may be the beginning of a marker, or white space before one (kSpaceBytesMax at most), or
// part of a call. Deltas hold whole characters if the fed texts do.
//
// Thread-compatible. Takes time linear in the text.
class OutputParser {
 public:
  // InvalidArgument for malformed tools.
  static absl::StatusOr<std::unique_ptr<OutputParser>> Create(OutputParserOptions options);

  OutputParser(const OutputParser&) = delete;
  OutputParser& operator=(const OutputParser&) = delete;

  std::vector<OutputDelta> Feed(std::string_view text);
  std::vector<OutputDelta> Finish();

  // Longer white space is not held back.
  static constexpr size_t kSpaceBytesMax = 64;

 private:
  enum class Section { kOutside, kThinking, kMessage, kCall };

  OutputParser(OutputParserOptions options, ToolSchemas tools);

  void Push(char c);
  void PushText(char c);
  void PushCall(char c);
  // What held_ is, as a marker of the current section.
  enum class Match { kNothing, kBeginning, kMarker };
  Match MatchHeld();
  Match MatchOpenings();
  void OpenCall(const Opening& opening);
  void OpenThinking();
  void Release(char c);
  void ReleaseSpace();
  void ReleaseAll(std::string_view text);
  void TakeCalls();
  void ReturnMalformed();
  void Append(std::string_view text);
  bool holds_space() const {
    return section_ == Section::kThinking || section_ == Section::kOutside;
  }

  const OutputParserOptions options_;
  const ToolSchemas tools_;
  const CallGrammar& grammar_;
  const ReasoningMarkers reasoning_;
  CallParser call_;

  Section section_ = Section::kOutside;
  OutputDelta::Kind text_kind_ = OutputDelta::Kind::kContent;
  bool begun_ = false;        // content or a call has come
  bool thought_ = false;      // reasoning is over
  bool may_reopen_ = false;   // the marker that the prompt ended with may come again
  bool skip_space_ = false;   // behind a marker that white space belongs to
  bool behind_call_ = false;  // nothing but white space since a call
  std::string space_;         // white space that a call or marker may take away
  std::string held_;          // what may be the beginning of a marker
  std::string again_;         // bytes to be read again, the next one last
  int num_calls_ = 0;
  std::vector<OutputDelta> deltas_;
};

}  // namespace essor::model
