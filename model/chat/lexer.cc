#include "model/chat/lexer.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "model/chat/text.h"
#include "model/tokenizer/utf8.h"

namespace essor::model::jinja {
namespace {

// Longest first.
constexpr std::array<std::string_view, 26> kOperators = {
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
    "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};

bool IsNameStart(char c) {
  return absl::ascii_isalpha(c) || c == '_' || static_cast<int8_t>(c) < 0;
}
bool IsNameCharacter(char c) { return IsNameStart(c) || absl::ascii_isdigit(c); }

// Python's universal newlines; the last newline of a template does not count.
std::string NormaliseNewlines(std::string_view source) {
  std::string result;
  result.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      result.push_back(source[i]);
      continue;
    }
    result.push_back('\n');
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (!result.empty() && result.back() == '\n') result.pop_back();
  return result;
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char lower = absl::ascii_tolower(c);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (position_ < source_.size()) ESSOR_RETURN_IF_ERROR(LexData());
    Add(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  std::string_view Rest() const { return std::string_view(source_).substr(position_); }
  bool At(std::string_view text) const { return Rest().substr(0, text.size()) == text; }
  void Add(TokenKind kind, std::string_view text, Value value = {}) {
    tokens_.push_back({kind, std::string(text), std::move(value), line_});
  }
  void Advance(size_t count) {
    const std::string_view passed = Rest().substr(0, count);
    line_ += static_cast<int>(std::count(passed.begin(), passed.end(), '\n'));
    position_ += passed.size();
  }
  void SkipWhiteSpace() { Advance(Rest().size() - StripLeft(Rest()).size()); }

  // The next "{{", "{%" or "{#".
  size_t FindTag() const {
    for (size_t at = source_.find('{', position_); at != std::string::npos;
         at = source_.find('{', at + 1)) {
      if (at + 1 < source_.size() &&
          (source_[at + 1] == '{' || source_[at + 1] == '%' || source_[at + 1] == '#')) {
        return at;
      }
    }
    return std::string::npos;
  }

  // Data up to `tag`, shortened as the tag's sign and lstrip_blocks ask for.
  void AddData(size_t tag) {
    std::string_view data = std::string_view(source_).substr(position_, tag - position_);
    const char kind = source_[tag + 1];
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    if (sign == '-') {
      data = StripRight(data);
    } else if (sign != '+' && kind != '{') {
      const size_t newline = data.rfind('\n');
      const size_t line_start = newline == std::string_view::npos ? 0 : newline + 1;
      // Only where the tag is the first thing on its line.
      if ((line_start > 0 || at_line_start_) && StripLeft(data.substr(line_start)).empty()) {
        data = data.substr(0, line_start);
      }
    }
    if (!data.empty()) Add(TokenKind::kText, data);
    Advance(tag - position_);
  }

  absl::Status LexData() {
    const size_t tag = FindTag();
    if (tag == std::string::npos) {
      Add(TokenKind::kText, Rest());
      Advance(Rest().size());
      return absl::OkStatus();
    }
    AddData(tag);
    const char kind = source_[position_ + 1];
    const int line = line_;
    Advance(2);
    if (At("-") || At("+")) Advance(1);
    if (kind == '#') return SkipComment(line);
    if (kind == '{') return LexTag(TokenKind::kOutputBegin, TokenKind::kOutputEnd, "}}");
    if (IsRawTag()) return LexRaw(line);
    return LexTag(TokenKind::kBlockBegin, TokenKind::kBlockEnd, "%}");
  }

  // Behind a closing tag that begins at `at` with its sign: "-" takes white space, blocks and
  // comments take one newline unless the sign is "+".
  void FinishTag(std::string_view sign, std::string_view close) {
    Advance(sign.size() + close.size());
    const size_t before = position_;
    if (sign == "-") {
      SkipWhiteSpace();
    } else if (sign != "+" && close != "}}" && At("\n")) {
      Advance(1);
    }
    at_line_start_ = position_ > before ? source_[position_ - 1] == '\n' : false;
  }

  absl::Status SkipComment(int line) {
    const size_t end = source_.find("#}", position_);
    if (end == std::string::npos) return SyntaxError(line, "missing end of comment");
    const char last = end > position_ ? source_[end - 1] : '\0';
    const bool has_sign = last == '-' || last == '+';
    Advance(end - position_ - (has_sign ? 1 : 0));
    FinishTag(has_sign ? std::string_view(&last, 1) : "", "#}");
    return absl::OkStatus();
  }

  // "raw" and the end of the block.
  bool IsRawTag() const {
    std::string_view rest = StripLeft(Rest());
    if (rest.substr(0, 3) != "raw") return false;
    rest = StripLeft(rest.substr(3));
    return rest.substr(0, 2) == "%}" || rest.substr(0, 3) == "-%}";
  }

  absl::Status LexRaw(int line) {
    SkipWhiteSpace();
    Advance(3);
    SkipWhiteSpace();
    const bool strip = At("-");
    Advance(strip ? 3 : 2);
    if (strip) SkipWhiteSpace();
    at_line_start_ = false;
    for (size_t tag = source_.find("{%", position_); tag != std::string::npos;
         tag = source_.find("{%", tag + 1)) {
      std::string_view rest = std::string_view(source_).substr(tag + 2);
      if (!rest.empty() && (rest[0] == '-' || rest[0] == '+')) rest.remove_prefix(1);
      rest = StripLeft(rest);
      if (rest.substr(0, 6) != "endraw") continue;
      rest = StripLeft(rest.substr(6));
      const std::string_view sign =
          !rest.empty() && (rest[0] == '-' || rest[0] == '+') ? rest.substr(0, 1) : "";
      if (rest.substr(sign.size(), 2) != "%}") continue;
      AddData(tag);
      Advance(source_.size() - rest.size() - position_);
      FinishTag(sign, "%}");
      return absl::OkStatus();
    }
    return SyntaxError(line, "missing end of raw block");
  }

  // The inside of {{ }} or {% %}.
  absl::Status LexTag(TokenKind begin, TokenKind end, std::string_view close) {
    Add(begin, "");
    const int line = line_;
    std::string brackets;  // open ones; a tag cannot end inside
    while (true) {
      SkipWhiteSpace();
      if (position_ >= source_.size()) return SyntaxError(line, "unexpected end of template");
      if (brackets.empty()) {
        for (const std::string_view sign : {"", "-", "+"}) {
          if (sign == "+" && close == "}}") continue;
          if (!At(sign) || Rest().substr(sign.size(), 2) != close) continue;
          Add(end, "");
          FinishTag(sign, close);
          return absl::OkStatus();
        }
      }
      ESSOR_RETURN_IF_ERROR(LexToken(&brackets));
    }
  }

  absl::Status LexToken(std::string* brackets) {
    const char c = source_[position_];
    if (c == '\'' || c == '"') return LexString(c);
    if (absl::ascii_isdigit(c)) return LexNumber();
    if (IsNameStart(c)) {
      size_t size = 1;
      while (position_ + size < source_.size() && IsNameCharacter(source_[position_ + size]))
        ++size;
      Add(TokenKind::kName, Rest().substr(0, size));
      Advance(size);
      return absl::OkStatus();
    }
    for (const std::string_view symbol : kOperators) {
      if (!At(symbol)) continue;
      if (c == '(' || c == '[' || c == '{') brackets->push_back(c);
      if (c == ')' || c == ']' || c == '}') {
        const char open = c == ')' ? '(' : (c == ']' ? '[' : '{');
        if (brackets->empty() || brackets->back() != open) {
          return SyntaxError(line_, absl::StrFormat("unexpected '%c'", c));
        }
        brackets->pop_back();
      }
      Add(TokenKind::kOperator, symbol);
      Advance(symbol.size());
      return absl::OkStatus();
    }
    return SyntaxError(line_, absl::StrFormat("unexpected character '%c'", c));
  }

  absl::Status LexString(char quote) {
    const int line = line_;
    size_t end = position_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) return SyntaxError(line, "string without an end");
    std::string text;
    ESSOR_RETURN_IF_ERROR(Unescape(
        std::string_view(source_).substr(position_ + 1, end - position_ - 1), line, &text));
    Add(TokenKind::kString, "", Value(std::move(text)));
    Advance(end + 1 - position_);
    return absl::OkStatus();
  }

  // Python's escapes.
  static absl::Status Unescape(std::string_view raw, int line, std::string* out) {
    constexpr std::string_view kNames = "\\'\"abfnrtv";
    constexpr std::string_view kMeanings = "\\'\"\a\b\f\n\r\t\v";
    for (size_t i = 0; i < raw.size(); ++i) {
      if (raw[i] != '\\' || i + 1 >= raw.size()) {
        out->push_back(raw[i]);
        continue;
      }
      const char name = raw[++i];
      const size_t known = kNames.find(name);
      if (known != std::string_view::npos) {
        out->push_back(kMeanings[known]);
      } else if (name == '\n') {
        continue;
      } else if (name >= '0' && name <= '7') {
        char32_t value = 0;
        size_t used = 0;
        while (used < 3 && i + used < raw.size() && raw[i + used] >= '0' && raw[i + used] <= '7') {
          value = value * 8 + static_cast<char32_t>(raw[i + used++] - '0');
        }
        AppendUtf8(value, out);
        i += used - 1;
      } else if (name == 'x' || name == 'u' || name == 'U') {
        const size_t digits = name == 'x' ? 2 : (name == 'u' ? 4 : 8);
        char32_t value = 0;
        for (size_t k = 1; k <= digits; ++k) {
          const int digit = i + k < raw.size() ? HexDigit(raw[i + k]) : -1;
          if (digit < 0) return SyntaxError(line, "bad hexadecimal escape in a string");
          value = value * 16 + static_cast<char32_t>(digit);
        }
        if (value > 0x10ffff || (value >= 0xd800 && value < 0xe000)) {
          return SyntaxError(line, "escape in a string is not a character");
        }
        AppendUtf8(value, out);
        i += digits;
      } else if (name == 'N') {
        return SyntaxError(line, "\\N{...} in a string is not supported");
      } else {
        out->push_back('\\');
        out->push_back(name);
      }
    }
    return absl::OkStatus();
  }

  // Digits with single underscores between them.
  std::string TakeDigits(size_t* size) const {
    std::string digits;
    while (position_ + *size < source_.size()) {
      const char c = source_[position_ + *size];
      const char next =
          position_ + *size + 1 < source_.size() ? source_[position_ + *size + 1] : '\0';
      const bool underscore = c == '_' && !digits.empty() && absl::ascii_isdigit(next);
      if (!absl::ascii_isdigit(c) && !underscore) break;
      if (!underscore) digits.push_back(c);
      ++*size;
    }
    return digits;
  }

  absl::Status LexNumber() {
    size_t size = 0;
    std::string number = TakeDigits(&size);
    bool is_float = false;
    const auto peek = [&](size_t at) {
      return position_ + at < source_.size() ? source_[position_ + at] : '\0';
    };
    if (peek(size) == '.' && absl::ascii_isdigit(peek(size + 1)) &&
        (position_ == 0 || source_[position_ - 1] != '.')) {
      is_float = true;
      ++size;
      absl::StrAppend(&number, ".", TakeDigits(&size));
    }
    if (peek(size) == 'e' || peek(size) == 'E') {
      size_t digits_at = size + 1;
      const bool sign = peek(digits_at) == '+' || peek(digits_at) == '-';
      if (sign) ++digits_at;
      if (absl::ascii_isdigit(peek(digits_at))) {
        is_float = true;
        absl::StrAppend(&number, "e", sign ? std::string(1, peek(size + 1)) : "");
        size = digits_at;
        number += TakeDigits(&size);
      }
    }
    if (!is_float && number.size() > 1 && number[0] == '0' &&
        number.find_first_not_of('0') != std::string::npos) {
      return SyntaxError(line_, "an integer cannot begin with 0");
    }
    Add(TokenKind::kNumber, "",
        is_float ? Value(std::strtod(number.c_str(), nullptr)) : IntegerFromDigits(number));
    Advance(size);
    return absl::OkStatus();
  }

  std::string source_;
  size_t position_ = 0;
  int line_ = 1;
  bool at_line_start_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

absl::Status SyntaxError(int line, std::string_view problem) {
  return absl::InvalidArgumentError(absl::StrFormat("template line %d: %s", line, problem));
}

absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source) {
  return Lexer(NormaliseNewlines(source)).Run();
}

}  // namespace essor::model::jinja
