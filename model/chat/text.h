// Python's string operations on UTF-8: everything counts code points.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/chat/value.h"

namespace essor::model::jinja {

// str.isspace() of one character.
bool IsSpace(char32_t c);

// Without white space, or without the characters of `characters`, at the ends.
std::string_view StripLeft(std::string_view text);
std::string_view StripRight(std::string_view text);
std::string_view StripLeft(std::string_view text, std::string_view characters);
std::string_view StripRight(std::string_view text, std::string_view characters);

// Full Unicode case mapping without a language ("ß" becomes "SS").
std::string Upper(std::string_view text);
std::string Lower(std::string_view text);
// str.title(): every letter behind a non-letter in title case, the others lower.
std::string Title(std::string_view text);
// Jinja's title filter: words begin behind white space and - ( { [ <, in upper case.
std::string TitleWords(std::string_view text);
// Runs of letters, digits and underscores.
int64_t CountWords(std::string_view text);
// First character in title case, the rest lower.
std::string Capitalize(std::string_view text);

// Byte offset of each code point, and the size at the end: result[i] is where character i begins.
std::vector<size_t> CodePointOffsets(std::string_view text);

// str.split(separator, limit) and rsplit; limit < 0: none. `separator` is not empty.
std::vector<std::string_view> Split(std::string_view text, std::string_view separator,
                                    int64_t limit);
std::vector<std::string_view> SplitRight(std::string_view text, std::string_view separator,
                                         int64_t limit);
// At runs of white space, without empty parts.
std::vector<std::string_view> SplitSpaces(std::string_view text, int64_t limit);
std::vector<std::string_view> SplitSpacesRight(std::string_view text, int64_t limit);
// str.splitlines(): at \n, \r, \r\n, \v, \f, U+001C..1E, U+0085, U+2028, U+2029.
std::vector<std::string_view> SplitLines(std::string_view text, bool keep_ends);

// str.replace(); limit < 0: all. An empty `from` matches between all characters.
std::string Replace(std::string_view text, std::string_view from, std::string_view to,
                    int64_t limit);

// html.escape() as markupsafe writes it.
std::string EscapeHtml(std::string_view text);

// A decimal integer (optional '-', then digits) as int64, or as BigInt beyond.
Value IntegerFromDigits(std::string_view digits);

}  // namespace essor::model::jinja
