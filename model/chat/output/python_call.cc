#include "model/chat/output/python_call.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "common/status_macros.h"
#include "model/chat/output/tool_schemas.h"
#include "model/tokenizer/utf8.h"

namespace essor::model {
namespace {

using jinja::Dict;
using jinja::Value;

absl::Status Malformed(const char* what) { return absl::InvalidArgumentError(what); }

// Recursive descent over a complete argument list.
class LiteralParser {
 public:
  explicit LiteralParser(std::string_view text) : text_(text) {}

  absl::StatusOr<Value> ParseArguments() {
    auto arguments = std::make_shared<Dict>();
    SkipSpace();
    while (!AtEnd()) {
      const std::string name = TakeWord();
      if (name.empty() || absl::ascii_isdigit(name[0])) return Malformed("argument without a name");
      if (!Take('=')) return Malformed("argument without '='");
      ESSOR_ASSIGN_OR_RETURN(Value value, ParseValue(0));
      if (arguments->FindText(name) != nullptr) return Malformed("argument given twice");
      ESSOR_RETURN_IF_ERROR(arguments->Set(Value(name), std::move(value)));
      if (!Take(',') && !AtEnd()) return Malformed("arguments without a comma between them");
    }
    return Value(std::shared_ptr<const Dict>(std::move(arguments)));
  }

 private:
  bool AtEnd() const { return position_ == text_.size(); }
  char Current() const { return AtEnd() ? '\0' : text_[position_]; }
  void SkipSpace() {
    while (!AtEnd() && absl::ascii_isspace(Current())) ++position_;
  }
  // Takes `c` with white space on both sides.
  bool Take(char c) {
    SkipSpace();
    if (AtEnd() || Current() != c) return false;
    ++position_;
    SkipSpace();
    return true;
  }
  // Letters, digits, '_' and everything beyond ASCII.
  std::string TakeWord() {
    const size_t begin = position_;
    while (!AtEnd() && (absl::ascii_isalnum(Current()) || Current() == '_' ||
                        static_cast<unsigned char>(Current()) >= 0x80)) {
      ++position_;
    }
    return std::string(text_.substr(begin, position_ - begin));
  }

  absl::StatusOr<Value> ParseValue(int depth) {
    if (depth >= kCallDepthMax) return Malformed("nested too deep");
    SkipSpace();
    switch (Current()) {
      case '\'':
      case '"':
        return ParseString();
      case '[':
        return ParseList(depth);
      case '{':
        return ParseDict(depth);
      default:
        return ParseScalar();
    }
  }

  absl::StatusOr<Value> ParseScalar() {
    const size_t begin = position_;
    while (absl::ascii_isalnum(Current()) || Current() == '+' || Current() == '-' ||
           Current() == '.') {
      ++position_;
    }
    const std::string_view word = text_.substr(begin, position_ - begin);
    if (word == "True") return Value(true);
    if (word == "False") return Value(false);
    if (word == "None") return Value();
    return ParseJsonValue(word);
  }

  absl::StatusOr<Value> ParseList(int depth) {
    ++position_;
    std::vector<Value> items;
    SkipSpace();
    while (Current() != ']') {
      ESSOR_ASSIGN_OR_RETURN(Value item, ParseValue(depth + 1));
      items.push_back(std::move(item));
      if (!Take(',') && Current() != ']') return Malformed("items without a comma between them");
    }
    ++position_;
    return jinja::MakeList(std::move(items));
  }

  absl::StatusOr<Value> ParseDict(int depth) {
    ++position_;
    auto dict = std::make_shared<Dict>();
    SkipSpace();
    while (Current() != '}') {
      if (Current() != '"' && Current() != '\'') return Malformed("dict key that is no string");
      ESSOR_ASSIGN_OR_RETURN(const Value key, ParseString());
      if (!Take(':')) return Malformed("dict key without a value");
      ESSOR_ASSIGN_OR_RETURN(Value value, ParseValue(depth + 1));
      ESSOR_RETURN_IF_ERROR(dict->Set(key, std::move(value)));
      if (!Take(',') && Current() != '}') return Malformed("items without a comma between them");
    }
    ++position_;
    return Value(std::shared_ptr<const Dict>(std::move(dict)));
  }

  absl::StatusOr<Value> ParseString() {
    const char quote = text_[position_++];
    std::string result;
    while (!AtEnd() && Current() != quote) {
      const char c = text_[position_++];
      if (c != '\\') {
        result.push_back(c);
        continue;
      }
      ESSOR_RETURN_IF_ERROR(AppendEscape(&result));
    }
    if (AtEnd()) return Malformed("string without an end");
    ++position_;
    return Value(std::move(result));
  }

  // The escape behind a backslash. One that Python does not know stays as it is.
  absl::Status AppendEscape(std::string* out) {
    if (AtEnd()) return Malformed("string without an end");
    const char c = text_[position_++];
    constexpr std::string_view kNames = "\\'\"ntrabfv";
    constexpr std::string_view kBytes = "\\'\"\n\t\r\a\b\f\v";
    if (const size_t known = kNames.find(c); known != std::string_view::npos) {
      out->push_back(kBytes[known]);
      return absl::OkStatus();
    }
    if (c >= '0' && c <= '7') {
      AppendOctal(out);
      return absl::OkStatus();
    }
    if (c == 'x') return AppendHex(2, out);
    if (c == 'u') return AppendHex(4, out);
    if (c == 'U') return AppendHex(8, out);
    out->push_back('\\');
    out->push_back(c);
    return absl::OkStatus();
  }

  // One to three digits, of which the first has been read.
  void AppendOctal(std::string* out) {
    char32_t code = static_cast<char32_t>(text_[position_ - 1] - '0');
    for (int i = 0; i < 2 && Current() >= '0' && Current() <= '7'; ++i, ++position_) {
      code = code * 8 + static_cast<char32_t>(Current() - '0');
    }
    AppendUtf8(code, out);
  }

  absl::Status AppendHex(size_t digits, std::string* out) {
    char32_t code = 0;
    for (size_t i = 0; i < digits; ++i, ++position_) {
      if (!absl::ascii_isxdigit(Current())) return Malformed("escape without its digits");
      const char c = absl::ascii_tolower(Current());
      code = code * 16 + static_cast<char32_t>(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    const bool surrogate = code >= 0xd800 && code < 0xe000;
    if (code > 0x10ffff || surrogate) return Malformed("escape that is no character");
    AppendUtf8(code, out);
    return absl::OkStatus();
  }

  std::string_view text_;
  size_t position_ = 0;
};

}  // namespace

ScanResult PythonArgumentScanner::Push(char c) {
  if (quote_ != 0) {
    if (c == '\n') return ScanResult::kFailed;
    if (c == quote_ && !escaped_) quote_ = 0;
    escaped_ = c == '\\' && !escaped_;
    return ScanResult::kMore;
  }
  if (c == '\'' || c == '"') quote_ = c;
  if (c == '(' || c == '[' || c == '{') {
    if (closers_.size() > static_cast<size_t>(kCallDepthMax)) return ScanResult::kFailed;
    closers_.push_back(c == '(' ? ')' : c == '[' ? ']' : '}');
  }
  if (c != ')' && c != ']' && c != '}') return ScanResult::kMore;
  if (closers_.back() != c) return ScanResult::kFailed;
  closers_.pop_back();
  return closers_.empty() ? ScanResult::kDone : ScanResult::kMore;
}

absl::StatusOr<jinja::Value> ParsePythonArguments(std::string_view text) {
  return LiteralParser(text).ParseArguments();
}

}  // namespace essor::model
