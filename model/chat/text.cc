#include "model/chat/text.h"

#include <unicode/bytestream.h>
#include <unicode/casemap.h>
#include <unicode/uchar.h>

#include <algorithm>
#include <charconv>

#include "model/tokenizer/utf8.h"

namespace essor::model::jinja {
namespace {

// The character that ends at `end`.
size_t PreviousCharacter(std::string_view text, size_t end) {
  do {
    --end;
  } while (end > 0 && (static_cast<uint8_t>(text[end]) & 0xc0) == 0x80);
  return end;
}

template <typename Matches>
std::string_view StripLeftIf(std::string_view text, Matches matches) {
  while (!text.empty()) {
    const CodePoint c = DecodeUtf8(text.data());
    if (!matches(c.value)) break;
    text.remove_prefix(c.size);
  }
  return text;
}

template <typename Matches>
std::string_view StripRightIf(std::string_view text, Matches matches) {
  while (!text.empty()) {
    const size_t last = PreviousCharacter(text, text.size());
    if (!matches(DecodeUtf8(text.data() + last).value)) break;
    text.remove_suffix(text.size() - last);
  }
  return text;
}

auto OneOf(std::string_view characters) {
  std::vector<char32_t> set;
  for (size_t i = 0; i < characters.size();) {
    const CodePoint c = DecodeUtf8(characters.data() + i);
    set.push_back(c.value);
    i += c.size;
  }
  return [set = std::move(set)](char32_t c) {
    return std::find(set.begin(), set.end(), c) != set.end();
  };
}

template <typename Map>
std::string MapCase(std::string_view text, Map map) {
  std::string result;
  icu::StringByteSink<std::string> sink(&result, static_cast<int32_t>(text.size()));
  UErrorCode error = U_ZERO_ERROR;
  map(icu::StringPiece(text.data(), static_cast<int32_t>(text.size())), sink, error);
  return U_SUCCESS(error) ? result : std::string(text);
}

void AppendTitleCase(std::string_view character, std::string* out) {
  // Title case of one character by full mapping; ICU's toTitle would look at the word around it.
  UErrorCode error = U_ZERO_ERROR;
  icu::StringByteSink<std::string> sink(out);
  icu::CaseMap::utf8ToTitle(
      "", U_TITLECASE_NO_BREAK_ADJUSTMENT, nullptr,
      icu::StringPiece(character.data(), static_cast<int32_t>(character.size())), sink, nullptr,
      error);
}

bool IsLineEnd(char32_t c) {
  return (c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 ||
         c == 0x2029;
}

}  // namespace

bool IsSpace(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x1f);
  if (c == 0x85) return true;
  return (U_GET_GC_MASK(static_cast<UChar32>(c)) & U_GC_Z_MASK) != 0;
}

std::string_view StripLeft(std::string_view text) { return StripLeftIf(text, IsSpace); }
std::string_view StripRight(std::string_view text) { return StripRightIf(text, IsSpace); }
std::string_view StripLeft(std::string_view text, std::string_view characters) {
  return StripLeftIf(text, OneOf(characters));
}
std::string_view StripRight(std::string_view text, std::string_view characters) {
  return StripRightIf(text, OneOf(characters));
}

std::string Upper(std::string_view text) {
  return MapCase(text, [](icu::StringPiece piece, icu::ByteSink& sink, UErrorCode& error) {
    icu::CaseMap::utf8ToUpper("", 0, piece, sink, nullptr, error);
  });
}

std::string Lower(std::string_view text) {
  return MapCase(text, [](icu::StringPiece piece, icu::ByteSink& sink, UErrorCode& error) {
    icu::CaseMap::utf8ToLower("", 0, piece, sink, nullptr, error);
  });
}

std::string Title(std::string_view text) {
  std::string result;
  const std::string lower = Lower(text);
  bool after_letter = false;
  for (size_t i = 0; i < lower.size();) {
    const CodePoint c = DecodeUtf8(lower.data() + i);
    const std::string_view character = std::string_view(lower).substr(i, c.size);
    const bool cased = u_hasBinaryProperty(static_cast<UChar32>(c.value), UCHAR_CASED);
    if (cased && !after_letter) {
      AppendTitleCase(character, &result);
    } else {
      result.append(character);
    }
    after_letter = cased;
    i += c.size;
  }
  return result;
}

std::string TitleWords(std::string_view text) {
  std::string result;
  const auto separates = [](char32_t c) {
    return IsSpace(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
  };
  for (size_t i = 0; i < text.size();) {
    const size_t first = DecodeUtf8(text.data() + i).size;
    size_t end = i;
    const bool separator = separates(DecodeUtf8(text.data() + i).value);
    while (end < text.size()) {
      const CodePoint c = DecodeUtf8(text.data() + end);
      if (separates(c.value) != separator) break;
      end += c.size;
    }
    result += Upper(text.substr(i, first));
    result += Lower(text.substr(i + first, end - i - first));
    i = end;
  }
  return result;
}

int64_t CountWords(std::string_view text) {
  int64_t words = 0;
  bool inside = false;
  for (size_t i = 0; i < text.size();) {
    const CodePoint c = DecodeUtf8(text.data() + i);
    constexpr uint32_t kWord = U_GC_L_MASK | U_GC_N_MASK;
    const bool word = c.value == '_' || (U_GET_GC_MASK(static_cast<UChar32>(c.value)) & kWord) != 0;
    words += word && !inside;
    inside = word;
    i += c.size;
  }
  return words;
}

std::string Capitalize(std::string_view text) {
  if (text.empty()) return {};
  const size_t first = DecodeUtf8(text.data()).size;
  std::string result;
  AppendTitleCase(text.substr(0, first), &result);
  return result + Lower(text.substr(first));
}

std::vector<size_t> CodePointOffsets(std::string_view text) {
  std::vector<size_t> offsets;
  for (size_t i = 0; i < text.size(); i += DecodeUtf8(text.data() + i).size) offsets.push_back(i);
  offsets.push_back(text.size());
  return offsets;
}

std::vector<std::string_view> Split(std::string_view text, std::string_view separator,
                                    int64_t limit) {
  std::vector<std::string_view> parts;
  size_t begin = 0;
  while (limit < 0 || static_cast<int64_t>(parts.size()) < limit) {
    const size_t at = text.find(separator, begin);
    if (at == std::string_view::npos) break;
    parts.push_back(text.substr(begin, at - begin));
    begin = at + separator.size();
  }
  parts.push_back(text.substr(begin));
  return parts;
}

std::vector<std::string_view> SplitRight(std::string_view text, std::string_view separator,
                                         int64_t limit) {
  std::vector<std::string_view> parts;
  while (limit < 0 || static_cast<int64_t>(parts.size()) < limit) {
    const size_t at = text.rfind(separator);
    if (at == std::string_view::npos) break;
    parts.push_back(text.substr(at + separator.size()));
    text = text.substr(0, at);
  }
  parts.push_back(text);
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string_view> SplitSpaces(std::string_view text, int64_t limit) {
  std::vector<std::string_view> parts;
  text = StripLeft(text);
  while (!text.empty()) {
    if (limit >= 0 && static_cast<int64_t>(parts.size()) >= limit) {
      // The rest keeps its inner white space and, in Python, the white space at its end.
      parts.push_back(text);
      break;
    }
    size_t end = 0;
    while (end < text.size()) {
      const CodePoint c = DecodeUtf8(text.data() + end);
      if (IsSpace(c.value)) break;
      end += c.size;
    }
    parts.push_back(text.substr(0, end));
    text = StripLeft(text.substr(end));
  }
  return parts;
}

std::vector<std::string_view> SplitSpacesRight(std::string_view text, int64_t limit) {
  std::vector<std::string_view> parts;
  text = StripRight(text);
  while (!text.empty()) {
    if (limit >= 0 && static_cast<int64_t>(parts.size()) >= limit) {
      parts.push_back(text);
      break;
    }
    size_t begin = text.size();
    while (begin > 0) {
      const size_t previous = PreviousCharacter(text, begin);
      if (IsSpace(DecodeUtf8(text.data() + previous).value)) break;
      begin = previous;
    }
    parts.push_back(text.substr(begin));
    text = StripRight(text.substr(0, begin));
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string_view> SplitLines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t begin = 0;
  for (size_t i = 0; i < text.size();) {
    const CodePoint c = DecodeUtf8(text.data() + i);
    const size_t line_end = i;
    i += c.size;
    if (!IsLineEnd(c.value)) continue;
    if (c.value == '\r' && i < text.size() && text[i] == '\n') ++i;
    lines.push_back(text.substr(begin, (keep_ends ? i : line_end) - begin));
    begin = i;
  }
  if (begin < text.size()) lines.push_back(text.substr(begin));
  return lines;
}

std::string Replace(std::string_view text, std::string_view from, std::string_view to,
                    int64_t limit) {
  std::string result;
  const auto may_replace = [&limit] { return limit < 0 || limit-- > 0; };
  if (from.empty()) {
    for (size_t i = 0; i <= text.size();) {
      if (may_replace()) result.append(to);
      if (i == text.size()) break;
      const size_t size = DecodeUtf8(text.data() + i).size;
      result.append(text.substr(i, size));
      i += size;
    }
    return result;
  }
  size_t begin = 0;
  while (true) {
    const size_t at = text.find(from, begin);
    if (at == std::string_view::npos || !may_replace()) break;
    result.append(text.substr(begin, at - begin));
    result.append(to);
    begin = at + from.size();
  }
  result.append(text.substr(begin));
  return result;
}

std::string EscapeHtml(std::string_view text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '&':
        result.append("&amp;");
        break;
      case '<':
        result.append("&lt;");
        break;
      case '>':
        result.append("&gt;");
        break;
      case '\'':
        result.append("&#39;");
        break;
      case '"':
        result.append("&#34;");
        break;
      default:
        result.push_back(c);
    }
  }
  return result;
}

Value IntegerFromDigits(std::string_view digits) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error == std::errc() && end == digits.data() + digits.size()) return Value(value);
  const bool negative = digits.front() == '-';
  digits.remove_prefix(negative ? 1 : 0);
  digits.remove_prefix(std::min(digits.find_first_not_of('0'), digits.size() - 1));
  return Value(std::make_shared<const BigInt>(BigInt{(negative ? "-" : "") + std::string(digits)}));
}

}  // namespace essor::model::jinja
