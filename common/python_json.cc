#include "common/python_json.h"

#include <algorithm>
#include <string>

namespace essor {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// Behind the string that begins at `begin`, or the document's end when it is not closed.
size_t EndOfString(std::string_view json, size_t begin) {
  size_t end = begin + 1;
  while (end < json.size() && json[end] != '"') end += json[end] == '\\' ? 2 : 1;
  return std::min(end + 1, json.size());
}

size_t EndOfNumber(std::string_view json, size_t begin) {
  size_t end = begin + 1;
  while (end < json.size() && (IsDigit(json[end]) || json[end] == '.' || json[end] == '-' ||
                               json[end] == '+' || json[end] == 'e' || json[end] == 'E')) {
    ++end;
  }
  return end;
}

// Whether `number` is whole and may lie outside int64 and uint64.
bool IsHuge(std::string_view number) {
  constexpr size_t kSafeDigits = 19;  // of uint64; one fewer is safe below zero
  const bool is_negative = number.front() == '-';
  if (is_negative) number.remove_prefix(1);
  return number.size() > (is_negative ? kSafeDigits - 1 : kSafeDigits) &&
         std::all_of(number.begin(), number.end(), IsDigit);
}

// The name of no finite number that `text` begins with; empty when there is none.
std::string_view NotFiniteAt(std::string_view text) {
  for (const std::string_view name : {"NaN", "Infinity", "-Infinity"}) {
    if (text.starts_with(name)) return name;
  }
  return {};
}

std::string Rewritten(std::string_view json) {
  std::string result;
  for (size_t at = 0; at < json.size();) {
    const std::string_view not_finite = NotFiniteAt(json.substr(at));
    size_t end = at + 1;
    if (json[at] == '"') {
      end = EndOfString(json, at);
    } else if (!not_finite.empty()) {
      result += "null";
      at += not_finite.size();
      continue;
    } else if (json[at] == '-' || IsDigit(json[at])) {
      end = EndOfNumber(json, at);
    }
    result += json.substr(at, end - at);
    if (json[at] != '"' && IsHuge(json.substr(at, end - at))) result += "e0";
    at = end;
  }
  return result;
}

}  // namespace

simdjson::simdjson_result<simdjson::dom::element> ParsePythonJson(std::string_view json,
                                                                  simdjson::dom::parser* parser) {
  const auto parsed = parser->parse(json.data(), json.size());
  if (parsed.error() == simdjson::SUCCESS) return parsed;
  const std::string rewritten = Rewritten(json);
  if (rewritten == json) return parsed;
  return parser->parse(rewritten);
}

}  // namespace essor
