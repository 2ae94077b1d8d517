#include "model/chat/guard_special_tokens.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "model/tokenizer/guards.h"
#include "model/tokenizer/utf8.h"

namespace essor::model {
namespace {

// Sorted texts, searched for those that a string begins with.
class PrefixSet {
 public:
  explicit PrefixSet(std::vector<std::string_view> texts) : texts_(std::move(texts)) {
    std::sort(texts_.begin(), texts_.end());
  }

  // Whether `string` begins with one of the texts; `if_cut` when the string ends inside one.
  bool Matches(std::string_view string, bool if_cut) const {
    auto first = texts_.begin();
    auto last = texts_.end();
    for (size_t i = 0; first != last; ++i) {
      if (i == string.size()) return if_cut && i > 0;
      // The texts that agree with the string up to here, and none of them ends before here.
      const auto order = [i](std::string_view text, char c) {
        return static_cast<uint8_t>(text[i]) < static_cast<uint8_t>(c);
      };
      const auto reverse_order = [i](char c, std::string_view text) {
        return static_cast<uint8_t>(c) < static_cast<uint8_t>(text[i]);
      };
      first = std::lower_bound(first, last, string[i], order);
      last = std::upper_bound(first, last, string[i], reverse_order);
      if (first != last && first->size() == i + 1) return true;
    }
    return false;
  }

 private:
  std::vector<std::string_view> texts_;
};

}  // namespace

// Finds where special-token texts begin.
class SpecialTokenGuard::SpecialTexts {
 public:
  explicit SpecialTexts(std::vector<std::string> texts)
      : texts_(std::move(texts)), whole_(NonEmpty(texts_)) {
    for (const std::string& text : texts_) {
      for (size_t at = 1; at < text.size(); ++at) starts_[static_cast<uint8_t>(text[at])] = true;
    }
  }

  // `text` with guards and escapes; the same text when it needs none.
  std::string Guarded(const std::string& text) {
    std::string result;
    if (EndsAtStart(text)) AppendUtf8(kGuard, &result);
    for (size_t i = 0; i < text.size();) {
      const CodePoint c = DecodeUtf8(text.data() + i);
      if (BeginsAt(text, i)) AppendUtf8(kGuard, &result);
      if (c.value == kGuard || c.value == kGuardEscape) AppendUtf8(kGuardEscape, &result);
      result.append(text, i, c.size);
      i += c.size;
    }
    return result;
  }

 private:
  // Whether a text begins at `position`, or would if something followed the string's end.
  bool BeginsAt(std::string_view string, size_t position) const {
    return whole_.Matches(string.substr(position), /*if_cut=*/true);
  }

  // Whether the string begins with the rest of a text whose beginning would lie before it.
  bool EndsAtStart(std::string_view string) {
    if (string.empty() || !starts_[static_cast<uint8_t>(string[0])]) return false;
    if (!rests_.has_value()) rests_.emplace(Rests(texts_));
    return rests_->Matches(string, /*if_cut=*/false);
  }

  static std::vector<std::string_view> NonEmpty(const std::vector<std::string>& texts) {
    std::vector<std::string_view> result;
    for (const std::string& text : texts) {
      if (!text.empty()) result.push_back(text);
    }
    return result;
  }
  static std::vector<std::string_view> Rests(const std::vector<std::string>& texts) {
    std::vector<std::string_view> result;
    for (const std::string_view text : texts) {
      for (size_t at = 1; at < text.size(); ++at) result.push_back(text.substr(at));
    }
    return result;
  }

  const std::vector<std::string> texts_;
  PrefixSet whole_;
  std::array<bool, 256> starts_{};  // first bytes of rests
  std::optional<PrefixSet> rests_;  // built when first needed
};

namespace {

// Four hexadecimal digits at `position`; -1 when there are none.
int32_t ReadHex(std::string_view text, size_t position) {
  if (position + 4 > text.size()) return -1;
  int32_t value = 0;
  for (const char c : text.substr(position, 4)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

// The content of a JSON string without its quotes; false for a bad escape.
bool Unescape(std::string_view raw, std::string* out) {
  for (size_t i = 0; i < raw.size();) {
    if (raw[i] != '\\') {
      out->push_back(raw[i++]);
      continue;
    }
    if (i + 1 >= raw.size()) return false;
    constexpr std::string_view kNames = "\"\\/bfnrt";
    constexpr std::string_view kMeanings = "\"\\/\b\f\n\r\t";
    const size_t known = kNames.find(raw[i + 1]);
    if (known != std::string_view::npos) {
      out->push_back(kMeanings[known]);
      i += 2;
      continue;
    }
    if (raw[i + 1] != 'u') return false;
    int32_t value = ReadHex(raw, i + 2);
    i += 6;
    if (value >= 0xd800 && value < 0xdc00) {
      const bool pair = raw.substr(std::min(i, raw.size()), 2) == "\\u";
      const int32_t low = pair ? ReadHex(raw, i + 2) : -1;
      if (low < 0xdc00 || low > 0xdfff) return false;
      value = 0x10000 + ((value - 0xd800) << 10) + (low - 0xdc00);
      i += 6;
    }
    if (value < 0 || (value >= 0xdc00 && value < 0xe000)) return false;
    AppendUtf8(static_cast<char32_t>(value), out);
  }
  return true;
}

void AppendEscaped(std::string_view text, std::string* out) {
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out->push_back('\\');
      out->push_back(c);
    } else if (static_cast<uint8_t>(c) < 0x20) {
      absl::StrAppendFormat(out, "\\u%04x", static_cast<uint32_t>(static_cast<uint8_t>(c)));
    } else {
      out->push_back(c);
    }
  }
}

}  // namespace

SpecialTokenGuard::SpecialTokenGuard(std::vector<std::string> special_texts)
    : texts_(std::make_unique<SpecialTexts>(std::move(special_texts))) {}

SpecialTokenGuard::~SpecialTokenGuard() = default;

std::string SpecialTokenGuard::GuardStrings(std::string_view json) {
  if (!IsValidUtf8(json)) return std::string(json);
  std::string result;
  size_t copied = 0;
  size_t quote = json.find('"');
  while (quote != std::string_view::npos) {
    size_t end = quote + 1;
    while (end < json.size() && json[end] != '"') end += json[end] == '\\' ? 2 : 1;
    if (end >= json.size()) break;  // not closed: for the parser to refuse
    std::string text;
    if (Unescape(json.substr(quote + 1, end - quote - 1), &text)) {
      const std::string guarded = texts_->Guarded(text);
      if (guarded != text) {
        result.append(json.substr(copied, quote + 1 - copied));
        AppendEscaped(guarded, &result);
        copied = end;
      }
    }
    quote = json.find('"', end + 1);
  }
  result.append(json.substr(copied));
  return result;
}

}  // namespace essor::model
