#include "model/chat/output/call_parser.h"

#include <algorithm>
#include <iterator>
#include <memory>
#include <utility>

#include "absl/strings/ascii.h"
#include "model/chat/json_value.h"
#include "model/chat/python_format.h"
#include "model/tokenizer/utf8.h"

namespace essor::model {
namespace {

using jinja::Value;

bool IsNameByte(char c) {
  return absl::ascii_isalnum(c) || c == '_' || c == '-' || c == '.' || c == ':' || c == '/' ||
         static_cast<unsigned char>(c) >= 0x80;
}

bool IsName(std::string_view text) {
  return !text.empty() && text.size() <= kCallNameBytesMax &&
         std::all_of(text.begin(), text.end(), IsNameByte) && IsValidUtf8(text);
}

std::string_view Trim(std::string_view text) {
  while (!text.empty() && absl::ascii_isspace(text.front())) text.remove_prefix(1);
  while (!text.empty() && absl::ascii_isspace(text.back())) text.remove_suffix(1);
  return text;
}

// NAME of functions.NAME:INDEX; the parts around it may be missing.
std::string_view NameInId(std::string_view id) {
  constexpr std::string_view kPrefix = "functions.";
  if (id.starts_with(kPrefix)) id.remove_prefix(kPrefix.size());
  const size_t colon = id.rfind(':');
  if (colon == std::string_view::npos) return id;
  const std::string_view index = id.substr(colon + 1);
  const bool number = std::all_of(index.begin(), index.end(), absl::ascii_isdigit);
  return number && !index.empty() ? id.substr(0, colon) : id;
}

bool IsCallKey(const std::string& key) {
  return key == "name" || key == "arguments" || key == "parameters" || key == "id" || key == "type";
}

bool HasByte(const std::vector<CallBranch>& branches, char c) {
  return std::any_of(branches.begin(), branches.end(), [c](const CallBranch& branch) {
    return branch.marker.find(c) != std::string_view::npos;
  });
}

}  // namespace

void CallParser::Begin(std::string prefix, const Opening& opening) {
  withheld_ = std::move(prefix);
  opening_bytes_ = withheld_.size() + (opening.part_of_call ? 1 : 0);
  bare_ = opening.bare;
  call_ = {};
  arguments_ = {};
  added_.clear();
  GoTo(opening.step);
}

void CallParser::GoTo(int step) {
  step_ = step;
  token_.clear();
  json_ = {};
  python_ = {};
}

CallParser::Result CallParser::Push(char c) {
  withheld_.push_back(c);
  if (withheld_.size() > options_.bytes_max) return Result::kFailed;
  return Dispatch(c);
}

CallParser::Result CallParser::Dispatch(char c) {
  switch (step().op) {
    case CallOp::kExpect:
      return PushExpect(c);
    case CallOp::kName:
    case CallOp::kId:
    case CallOp::kNamedId:
    case CallOp::kKey:
    case CallOp::kValue:
      return PushText(c);
    case CallOp::kJsonArguments:
    case CallOp::kJsonCall:
      return PushJson(c);
    case CallOp::kPythonArguments:
      return PushPython(c);
  }
  return Result::kFailed;
}

CallParser::Result CallParser::PushExpect(char c) {
  if (token_.empty() && absl::ascii_isspace(c)) return Result::kMore;
  token_.push_back(c);
  bool begun = false;
  for (const CallBranch& branch : step().branches) {
    if (branch.marker == token_) return Follow(branch);
    begun = begun || branch.marker.starts_with(token_);
  }
  if (begun) return Result::kMore;
  if (token_.size() > 1 || step().otherwise == kBlockEnds) return Result::kFailed;
  GoTo(step().otherwise);
  return Dispatch(c);
}

CallParser::Result CallParser::PushText(char c) {
  token_.push_back(c);
  for (const CallBranch& branch : step().branches) {
    if (!std::string_view(token_).ends_with(branch.marker)) continue;
    const std::string_view text =
        std::string_view(token_).substr(0, token_.size() - branch.marker.size());
    return AcceptText(text) ? Follow(branch) : Result::kFailed;
  }
  const CallOp op = step().op;
  if (op == CallOp::kValue) return Result::kMore;
  if (token_.size() > kCallNameBytesMax + kMarkerBytesMax) return Result::kFailed;
  const bool possible =
      op == CallOp::kKey || IsNameByte(c) || absl::ascii_isspace(c) || HasByte(step().branches, c);
  return possible ? Result::kMore : Result::kFailed;
}

CallParser::Result CallParser::PushJson(char c) {
  token_.push_back(c);
  const bool call = step().op == CallOp::kJsonCall;
  const ScanResult result = json_.Push(c);
  if (result == ScanResult::kFailed) return Result::kFailed;
  if (call && json_.ended_key() != nullptr && !IsCallKey(*json_.ended_key())) {
    return Result::kFailed;
  }
  if (result == ScanResult::kMore) return Result::kMore;
  if (call) {
    if (!AcceptJsonCall()) return Result::kFailed;
  } else {
    if (!jinja::ParseJson(token_, "arguments").ok()) return Result::kFailed;
    call_.arguments = std::string(Trim(token_));
  }
  return Follow(step().branches.front());
}

CallParser::Result CallParser::PushPython(char c) {
  const ScanResult result = python_.Push(c);
  if (result == ScanResult::kFailed) return Result::kFailed;
  if (result == ScanResult::kMore) {
    token_.push_back(c);
    return Result::kMore;
  }
  if (!IsValidUtf8(token_)) return Result::kFailed;
  const absl::StatusOr<Value> arguments = ParsePythonArguments(token_);
  if (!arguments.ok() || !SetArguments(*arguments)) return Result::kFailed;
  return Follow(step().branches.front());
}

CallParser::Result CallParser::Follow(const CallBranch& branch) {
  switch (branch.action) {
    case CallAction::kNone:
      break;
    case CallAction::kTextValue:
    case CallAction::kJsonValue:
      value_kind_ = branch.action;
      break;
    case CallAction::kAddCall:
      if (!AddCall()) return Result::kFailed;
      break;
    case CallAction::kCallEnds:
      if (!AddCall()) return Result::kFailed;
      Commit();
      break;
    case CallAction::kCommit:
      Commit();
      break;
    case CallAction::kBeginReasoning:
      return Result::kReasoning;
    case CallAction::kBeginContent:
      return Result::kContent;
  }
  if (branch.next == kBlockEnds) return Result::kEnded;
  GoTo(branch.next);
  return Result::kMore;
}

bool CallParser::AcceptText(std::string_view text) {
  switch (step().op) {
    case CallOp::kName:
      return AcceptName(Trim(text));
    case CallOp::kId:
      call_.id = std::string(Trim(text));
      return IsName(call_.id);
    case CallOp::kNamedId:
      call_.id = std::string(Trim(text));
      return IsName(call_.id) && AcceptName(NameInId(call_.id));
    case CallOp::kKey:
      key_ = std::string(text);
      value_kind_ = CallAction::kNone;
      return !key_.empty() && key_.size() <= kCallNameBytesMax && IsValidUtf8(key_);
    default:
      return AcceptValue(text);
  }
}

bool CallParser::AcceptName(std::string_view name) {
  call_.name = std::string(name);
  return IsName(name);
}

bool CallParser::AcceptValue(std::string_view text) {
  if (!IsValidUtf8(text)) return false;
  if (grammar_.value_on_own_lines && text.starts_with('\n')) text.remove_prefix(1);
  if (grammar_.value_on_own_lines && text.ends_with('\n')) text.remove_suffix(1);
  if (value_kind_ == CallAction::kTextValue) return arguments_.Set(key_, text).ok();
  if (value_kind_ == CallAction::kNone) {
    return arguments_.Set(key_, tools_.Argument(call_.name, key_, text)).ok();
  }
  const absl::StatusOr<Value> value = ParseJsonValue(text);
  return value.ok() && arguments_.Set(key_, *value).ok();
}

bool CallParser::AcceptJsonCall() {
  const absl::StatusOr<Value> object = jinja::ParseJson(token_, "call");
  if (!object.ok()) return false;
  const jinja::Dict& fields = *object->as_dict();
  const Value* name = fields.FindText("name");
  if (name == nullptr || !name->is_string() || !AcceptName(*name->as_text())) return false;
  if (const Value* type = fields.FindText("type")) {
    if (!type->is_string() || *type->as_text() != "function") return false;
  }
  if (const Value* id = fields.FindText("id")) {
    if (!id->is_string() || !IsName(*id->as_text())) return false;
    call_.id = *id->as_text();
  }
  const Value* arguments = fields.FindText("arguments");
  const Value* parameters = fields.FindText("parameters");
  if (arguments != nullptr && parameters != nullptr) return false;
  if (arguments == nullptr) arguments = parameters;
  // Without a marker, a name alone does not make a call.
  if (arguments == nullptr) return !bare_;
  return SetArguments(*arguments);
}

// From a dict, or from a string that holds one as JSON, as some models write.
bool CallParser::SetArguments(const Value& value) {
  if (const std::string* text = value.as_text()) {
    const absl::StatusOr<Value> inner = ParseJsonValue(*text);
    if (!inner.ok() || inner->as_dict() == nullptr) return false;
    call_.arguments = *text;
    return true;
  }
  if (value.as_dict() == nullptr) return false;
  absl::StatusOr<std::string> json = jinja::ToJson(value, {});
  if (!json.ok()) return false;
  call_.arguments = *std::move(json);
  return true;
}

bool CallParser::AddCall() {
  if (!options_.counts) return false;
  if (bare_ && !tools_.empty() && !tools_.Knows(call_.name)) return false;
  if (call_.arguments.empty() &&
      !SetArguments(Value(std::make_shared<const jinja::Dict>(std::move(arguments_))))) {
    return false;
  }
  added_.push_back(std::move(call_));
  call_ = {};
  arguments_ = {};
  return true;
}

void CallParser::Commit() {
  std::move(added_.begin(), added_.end(), std::back_inserter(counted_));
  added_.clear();
  withheld_.clear();
  opening_bytes_ = 0;
}

bool CallParser::Finish() {
  if (!step().may_end || !token_.empty()) return false;
  Commit();
  return true;
}

std::vector<ToolCall> CallParser::TakeCalls() { return std::exchange(counted_, {}); }

CallParser::Withheld CallParser::TakeWithheld() {
  return {std::exchange(withheld_, {}), std::exchange(opening_bytes_, 0)};
}

}  // namespace essor::model
