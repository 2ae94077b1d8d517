#include "model/chat/output/output_parser.h"

#include <algorithm>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/ascii.h"
#include "common/status_macros.h"

namespace essor::model {
namespace {

using Kind = OutputDelta::Kind;

bool IsSpace(std::string_view text) {
  return std::all_of(text.begin(), text.end(), absl::ascii_isspace);
}

}  // namespace

absl::StatusOr<std::unique_ptr<OutputParser>> OutputParser::Create(OutputParserOptions options) {
  ESSOR_ASSIGN_OR_RETURN(ToolSchemas tools, ToolSchemas::Parse(options.tools_json));
  if (!options.calls && options.syntax.calls != CallSyntax::kHarmony) {
    options.syntax.calls = CallSyntax::kNone;
  }
  return absl::WrapUnique(new OutputParser(std::move(options), std::move(tools)));
}

OutputParser::OutputParser(OutputParserOptions options, ToolSchemas tools)
    : options_(std::move(options)),
      tools_(std::move(tools)),
      grammar_(GrammarOf(options_.syntax.calls)),
      reasoning_(MarkersOf(options_.syntax.reasoning)),
      call_(grammar_, tools_, {.counts = options_.calls, .bytes_max = options_.call_bytes_max}) {
  if (!options_.begins_in_reasoning || reasoning_.close.empty()) return;
  OpenThinking();
  may_reopen_ = true;
}

std::vector<OutputDelta> OutputParser::Feed(std::string_view text) {
  for (const char c : text) {
    Push(c);
    while (!again_.empty()) {
      const char next = again_.back();
      again_.pop_back();
      Push(next);
    }
  }
  return std::exchange(deltas_, {});
}

std::vector<OutputDelta> OutputParser::Finish() {
  if (section_ == Section::kCall) {
    if (call_.Finish()) TakeCalls();
    const std::string text = call_.TakeWithheld().text;
    section_ = Section::kOutside;
    if (!IsSpace(text)) ReleaseAll(text);
  }
  ReleaseAll(std::exchange(held_, {}));
  if (!behind_call_) ReleaseSpace();
  return std::exchange(deltas_, {});
}

void OutputParser::Push(char c) {
  if (section_ == Section::kCall) {
    PushCall(c);
  } else {
    PushText(c);
  }
}

void OutputParser::PushText(char c) {
  held_.push_back(c);
  while (!held_.empty()) {
    // A whole marker has been dealt with and emptied held_.
    if (MatchHeld() != Match::kNothing) return;
    const char first = held_.front();
    held_.erase(0, 1);
    Release(first);
  }
}

OutputParser::Match OutputParser::MatchHeld() {
  if (section_ == Section::kOutside) return MatchOpenings();
  if (section_ == Section::kThinking) {
    const bool again = may_reopen_ && skip_space_ && reasoning_.open.starts_with(held_);
    if (!again && !reasoning_.close.starts_with(held_)) return Match::kNothing;
    if (held_ != reasoning_.open && held_ != reasoning_.close) return Match::kBeginning;
    may_reopen_ = false;
    if (held_ == reasoning_.close) {
      section_ = Section::kOutside;
      text_kind_ = Kind::kContent;
      thought_ = true;
      skip_space_ = true;
      space_.clear();
    }
    held_.clear();
    return Match::kMarker;
  }
  bool begun = false;
  for (const std::string_view end : grammar_.message_ends) {
    if (end == held_) {
      section_ = Section::kOutside;
      text_kind_ = Kind::kContent;
      held_.clear();
      return Match::kMarker;
    }
    begun = begun || end.starts_with(held_);
  }
  return begun ? Match::kBeginning : Match::kNothing;
}

OutputParser::Match OutputParser::MatchOpenings() {
  bool begun = false;
  if (!begun_ && !thought_ && !reasoning_.open.empty() && reasoning_.open.starts_with(held_)) {
    if (held_ == reasoning_.open) {
      OpenThinking();
      return Match::kMarker;
    }
    begun = true;
  }
  for (const Opening& opening : grammar_.openings) {
    if ((opening.bare && begun_) || !opening.marker.starts_with(held_)) continue;
    if (held_ == opening.marker) {
      OpenCall(opening);
      return Match::kMarker;
    }
    begun = true;
  }
  return begun ? Match::kBeginning : Match::kNothing;
}

void OutputParser::OpenThinking() {
  section_ = Section::kThinking;
  text_kind_ = Kind::kReasoning;
  skip_space_ = true;
  space_.clear();
  held_.clear();
}

void OutputParser::OpenCall(const Opening& opening) {
  std::string marker = std::exchange(held_, {});
  const char last = marker.back();
  if (opening.part_of_call) marker.pop_back();
  section_ = Section::kCall;
  call_.Begin(std::exchange(space_, {}) + marker, opening);
  if (opening.part_of_call) PushCall(last);
}

void OutputParser::PushCall(char c) {
  const CallParser::Result result = call_.Push(c);
  TakeCalls();
  switch (result) {
    case CallParser::Result::kMore:
      return;
    case CallParser::Result::kFailed:
      section_ = Section::kOutside;
      return ReturnMalformed();
    case CallParser::Result::kEnded:
      section_ = Section::kOutside;
      return;
    case CallParser::Result::kReasoning:
    case CallParser::Result::kContent:
      section_ = Section::kMessage;
      text_kind_ = result == CallParser::Result::kContent ? Kind::kContent : Kind::kReasoning;
      return;
  }
}

void OutputParser::TakeCalls() {
  for (ToolCall& call : call_.TakeCalls()) {
    const int index = num_calls_++;
    deltas_.push_back({.kind = Kind::kCallBegin,
                       .call_index = index,
                       .call_id = std::move(call.id),
                       .call_name = std::move(call.name)});
    deltas_.push_back(
        {.kind = Kind::kCallArguments, .text = std::move(call.arguments), .call_index = index});
    deltas_.push_back({.kind = Kind::kCallEnd, .call_index = index});
    begun_ = true;
    behind_call_ = true;
    skip_space_ = false;
  }
}

// The end of what was malformed may be the beginning of something else.
void OutputParser::ReturnMalformed() {
  const CallParser::Withheld withheld = call_.TakeWithheld();
  const std::string_view text = withheld.text;
  const size_t again = std::min(kMarkerBytesMax, text.size() - withheld.opening);
  ReleaseAll(text.substr(0, text.size() - again));
  again_.append(text.rbegin(), text.rbegin() + static_cast<std::ptrdiff_t>(again));
}

void OutputParser::Release(char c) {
  if (holds_space() && absl::ascii_isspace(c)) {
    if (skip_space_) return;
    space_.push_back(c);
    if (space_.size() >= kSpaceBytesMax) ReleaseSpace();
    return;
  }
  ReleaseSpace();
  Append(std::string_view(&c, 1));
}

void OutputParser::ReleaseSpace() {
  if (!space_.empty()) Append(std::exchange(space_, {}));
}

void OutputParser::ReleaseAll(std::string_view text) {
  if (text.empty()) return;
  ReleaseSpace();
  Append(text);
}

void OutputParser::Append(std::string_view text) {
  if (section_ == Section::kOutside) begun_ = true;
  skip_space_ = false;
  behind_call_ = false;
  if (deltas_.empty() || deltas_.back().kind != text_kind_) {
    deltas_.push_back({.kind = text_kind_});
  }
  deltas_.back().text.append(text);
}

}  // namespace essor::model
