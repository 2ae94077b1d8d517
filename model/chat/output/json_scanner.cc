#include "model/chat/output/json_scanner.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace essor::model {
namespace {

bool IsJsonSpace(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }
bool IsDigit(char c) { return c >= '0' && c <= '9'; }

constexpr std::array<std::string_view, 3> kLiterals = {"true", "false", "null"};

}  // namespace

ScanResult JsonScanner::Push(char c) {
  key_ended_ = false;
  if (in_string_) return PushInString(c);
  if (state_ == State::kScalar) return PushScalar(c);
  return IsJsonSpace(c) ? ScanResult::kMore : PushStructure(c);
}

ScanResult JsonScanner::PushStructure(char c) {
  switch (state_) {
    case State::kObject:
      return c == '{' ? Open('}') : ScanResult::kFailed;
    case State::kFirstKey:
      if (c == '}') return Close(c);
      [[fallthrough]];
    case State::kKey:
      if (c != '"') return ScanResult::kFailed;
      BeginString(/*key=*/true);
      return ScanResult::kMore;
    case State::kColon:
      if (c != ':') return ScanResult::kFailed;
      state_ = State::kValue;
      return ScanResult::kMore;
    case State::kFirstItem:
      if (c == ']') return Close(c);
      [[fallthrough]];
    case State::kValue:
      return BeginValue(c);
    case State::kComma:
      if (c != ',') return Close(c);
      state_ = closers_.back() == '}' ? State::kKey : State::kValue;
      return ScanResult::kMore;
    case State::kScalar:
      break;
  }
  return ScanResult::kFailed;
}

ScanResult JsonScanner::BeginValue(char c) {
  if (c == '{') return Open('}');
  if (c == '[') return Open(']');
  if (c == '"') {
    BeginString(/*key=*/false);
    return ScanResult::kMore;
  }
  state_ = State::kScalar;
  literal_.clear();
  number_ = Number::kNone;
  if (c == '-') {
    number_ = Number::kSign;
  } else if (IsDigit(c)) {
    number_ = c == '0' ? Number::kZero : Number::kInteger;
  } else {
    return PushScalar(c);
  }
  return ScanResult::kMore;
}

ScanResult JsonScanner::Open(char closer) {
  if (closers_.size() >= static_cast<size_t>(kCallDepthMax)) return ScanResult::kFailed;
  closers_.push_back(closer);
  state_ = closer == '}' ? State::kFirstKey : State::kFirstItem;
  return ScanResult::kMore;
}

ScanResult JsonScanner::Close(char c) {
  if (c != closers_.back()) return ScanResult::kFailed;
  closers_.pop_back();
  state_ = State::kComma;
  return closers_.empty() ? ScanResult::kDone : ScanResult::kMore;
}

void JsonScanner::BeginString(bool key) {
  in_string_ = true;
  in_key_ = key;
  if (key) key_.clear();
}

ScanResult JsonScanner::PushInString(char c) {
  if (static_cast<unsigned char>(c) < 0x20) return ScanResult::kFailed;
  if (c == '"' && !escaped_) {
    in_string_ = false;
    state_ = in_key_ ? State::kColon : State::kComma;
    key_ended_ = in_key_ && closers_.size() == 1;
    return ScanResult::kMore;
  }
  escaped_ = c == '\\' && !escaped_;
  if (in_key_ && key_.size() < kKeyBytesMax) key_.push_back(c);
  return ScanResult::kMore;
}

ScanResult JsonScanner::PushScalar(char c) {
  if (number_ != Number::kNone) {
    if (ExtendNumber(c)) return ScanResult::kMore;
  } else if (c >= 'a' && c <= 'z') {
    literal_.push_back(c);
    const bool known = std::any_of(kLiterals.begin(), kLiterals.end(), [&](std::string_view word) {
      return word.substr(0, literal_.size()) == literal_;
    });
    return known ? ScanResult::kMore : ScanResult::kFailed;
  }
  if (!ScalarIsWhole()) return ScanResult::kFailed;
  state_ = State::kComma;
  return IsJsonSpace(c) ? ScanResult::kMore : PushStructure(c);
}

bool JsonScanner::ScalarIsWhole() const {
  if (number_ == Number::kNone) {
    return std::find(kLiterals.begin(), kLiterals.end(), literal_) != kLiterals.end();
  }
  return number_ == Number::kZero || number_ == Number::kInteger || number_ == Number::kFraction ||
         number_ == Number::kExponent;
}

// False if `c` does not go on with the number.
bool JsonScanner::ExtendNumber(char c) {
  const bool digit = IsDigit(c);
  Number next = Number::kNone;
  switch (number_) {
    case Number::kNone:
      break;
    case Number::kSign:
      if (digit) next = c == '0' ? Number::kZero : Number::kInteger;
      break;
    case Number::kZero:
    case Number::kInteger:
      if (digit && number_ == Number::kInteger) next = Number::kInteger;
      if (c == '.') next = Number::kPoint;
      break;
    case Number::kPoint:
    case Number::kFraction:
      if (digit) next = Number::kFraction;
      break;
    case Number::kE:
      if (c == '+' || c == '-') next = Number::kESign;
      [[fallthrough]];
    case Number::kESign:
    case Number::kExponent:
      if (digit) next = Number::kExponent;
      break;
  }
  if ((c == 'e' || c == 'E') && ScalarIsWhole() && number_ != Number::kExponent) next = Number::kE;
  if (next == Number::kNone) return false;
  number_ = next;
  return true;
}

}  // namespace essor::model
