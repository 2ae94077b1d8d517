// printf-style formatting, str.format() and strftime().
#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "model/chat/builtins.h"
#include "model/chat/operators.h"
#include "model/chat/python_format.h"
#include "model/tokenizer/utf8.h"

namespace essor::model::jinja {
namespace {

constexpr int64_t kWidthMax = 10000;

// One conversion: %[(name)][flags][width][.precision]type.
struct Conversion {
  std::string name;
  bool left = false;
  bool zero = false;
  bool plus = false;
  bool blank = false;
  int64_t width = 0;
  int64_t precision = -1;
  char type = 's';
};

// Reads digits at *i.
int64_t ReadNumber(std::string_view text, size_t* i) {
  int64_t number = 0;
  while (*i < text.size() && absl::ascii_isdigit(text[*i])) {
    number = std::min<int64_t>(number * 10 + (text[(*i)++] - '0'), kWidthMax + 1);
  }
  return number;
}

// The conversion behind the '%' at *i - 1.
absl::StatusOr<Conversion> ReadConversion(std::string_view format, size_t* i) {
  Conversion result;
  if (*i < format.size() && format[*i] == '(') {
    const size_t close = format.find(')', *i);
    if (close == std::string_view::npos) {
      return absl::InvalidArgumentError("incomplete format key");
    }
    result.name = std::string(format.substr(*i + 1, close - *i - 1));
    *i = close + 1;
  }
  for (; *i < format.size(); ++*i) {
    const char flag = format[*i];
    if (flag == '-') {
      result.left = true;
    } else if (flag == '0') {
      result.zero = true;
    } else if (flag == '+') {
      result.plus = true;
    } else if (flag == ' ') {
      result.blank = true;
    } else {
      break;
    }
  }
  result.width = ReadNumber(format, i);
  if (*i < format.size() && format[*i] == '.') {
    ++*i;
    result.precision = ReadNumber(format, i);
  }
  if (result.width > kWidthMax || result.precision > kWidthMax) {
    return absl::InvalidArgumentError("format wider than 10000 characters");
  }
  if (*i >= format.size()) return absl::InvalidArgumentError("incomplete format");
  result.type = format[(*i)++];
  return result;
}

std::string CutToCodePoints(const std::string& text, int64_t count) {
  size_t end = 0;
  for (int64_t n = 0; n < count && end < text.size(); ++n) {
    end += DecodeUtf8(text.data() + end).size;
  }
  return text.substr(0, end);
}

absl::StatusOr<std::string> FormatInteger(const Conversion& conversion, const Value& value) {
  if (value.is_undefined()) return UndefinedError(value);
  if (value.as_big_int() && conversion.type == 'd') return ToText(value);
  if (!value.is_small_number()) {
    return TypeError(absl::StrFormat("%%%c format: a real number is required, not %s",
                                     conversion.type, TypeName(value)));
  }
  if (value.is_float() && !(std::abs(*value.as_float()) < 9.2e18)) {
    return absl::InvalidArgumentError("float is too large for an integer format");
  }
  const int64_t number = value.is_float() ? static_cast<int64_t>(*value.as_float()) : value.ToInt();
  const uint64_t magnitude =
      number < 0 ? uint64_t{0} - static_cast<uint64_t>(number) : static_cast<uint64_t>(number);
  const char* sign = number < 0 ? "-" : "";
  switch (conversion.type) {
    case 'x':
      return absl::StrFormat("%s%x", sign, magnitude);
    case 'X':
      return absl::StrFormat("%s%X", sign, magnitude);
    case 'o':
      return absl::StrFormat("%s%o", sign, magnitude);
    default:
      return absl::StrCat(number);
  }
}

absl::StatusOr<std::string> FormatReal(const Conversion& conversion, const Value& value) {
  if (value.is_undefined()) return UndefinedError(value);
  if (!value.is_small_number()) {
    return TypeError(absl::StrFormat("must be real number, not %s", TypeName(value)));
  }
  const int precision = conversion.precision < 0 ? 6 : static_cast<int>(conversion.precision);
  const double number = value.ToDouble();
  switch (conversion.type) {
    case 'e':
      return absl::StrFormat("%.*e", precision, number);
    case 'g':
      return absl::StrFormat("%.*g", precision, number);
    default:
      return absl::StrFormat("%.*f", precision, number);
  }
}

absl::StatusOr<std::string> FormatValue(const Conversion& conversion, const Value& value) {
  std::string text;
  bool number = true;
  switch (conversion.type) {
    case 's':
    case 'r':
      text = conversion.type == 's' ? ToText(value) : ToRepr(value);
      if (conversion.precision >= 0) text = CutToCodePoints(text, conversion.precision);
      number = false;
      break;
    case 'd':
    case 'i':
    case 'u':
    case 'x':
    case 'X':
    case 'o': {
      ESSOR_ASSIGN_OR_RETURN(text, FormatInteger(conversion, value));
      break;
    }
    case 'f':
    case 'F':
    case 'e':
    case 'g': {
      ESSOR_ASSIGN_OR_RETURN(text, FormatReal(conversion, value));
      break;
    }
    default:
      return absl::InvalidArgumentError(
          absl::StrFormat("unsupported format character '%c'", conversion.type));
  }
  if (number && text[0] != '-' && (conversion.plus || conversion.blank)) {
    text.insert(0, conversion.plus ? "+" : " ");
  }
  const auto size = static_cast<int64_t>(CountCodePoints(text));
  if (size >= conversion.width) return text;
  const auto missing = static_cast<size_t>(conversion.width - size);
  if (conversion.left) return text + std::string(missing, ' ');
  if (!conversion.zero || !number) return std::string(missing, ' ') + text;
  const size_t sign = text[0] == '-' || text[0] == '+' || text[0] == ' ' ? 1 : 0;
  return text.substr(0, sign) + std::string(missing, '0') + text.substr(sign);
}

// The value of a replacement field: "0", "name", "name.attribute", "name[0]", or "" for the next.
absl::StatusOr<Value> FieldValue(Runtime& runtime, std::string_view field,
                                 const CallArguments& arguments, size_t* next) {
  const size_t end = std::min(field.find_first_of(".["), field.size());
  const std::string first(field.substr(0, end));
  field.remove_prefix(end);
  Value value;
  if (first.empty() || first.find_first_not_of("0123456789") == std::string::npos) {
    size_t i = 0;
    const size_t index = first.empty() ? (*next)++ : static_cast<size_t>(ReadNumber(first, &i));
    if (index >= arguments.positional.size()) {
      return absl::InvalidArgumentError("Replacement index out of range for positional args tuple");
    }
    value = arguments.positional[index];
  } else {
    const Value* found = nullptr;
    for (const auto& [name, item] : arguments.keyword) {
      if (name == first) found = &item;
    }
    if (found == nullptr) {
      return absl::InvalidArgumentError(absl::StrFormat("format() has no argument '%s'", first));
    }
    value = *found;
  }
  while (!field.empty()) {
    const bool item = field[0] == '[';
    const size_t stop =
        item ? field.find(']') : std::min(field.find_first_of(".[", 1), field.size());
    if (stop == std::string_view::npos) return absl::InvalidArgumentError("Missing ']' in format");
    const std::string name(field.substr(1, stop - 1));
    const bool number = !name.empty() && name.find_first_not_of("0123456789") == std::string::npos;
    size_t i = 0;
    if (item) {
      ESSOR_ASSIGN_OR_RETURN(
          value, LookUpItem(runtime, value, number ? Value(ReadNumber(name, &i)) : Value(name)));
    } else {
      ESSOR_ASSIGN_OR_RETURN(value, LookUpAttribute(value, name));
    }
    field.remove_prefix(item ? stop + 1 : stop);
  }
  return value;
}

}  // namespace

absl::StatusOr<std::string> FormatPercent(Runtime& runtime, std::string_view format,
                                          const std::vector<Value>& values, const Dict* named) {
  std::string result;
  size_t next = 0;
  bool used_names = false;
  for (size_t i = 0; i < format.size();) {
    const char c = format[i++];
    if (c != '%') {
      result.push_back(c);
      continue;
    }
    ESSOR_ASSIGN_OR_RETURN(const Conversion conversion, ReadConversion(format, &i));
    if (conversion.type == '%') {
      result.push_back('%');
      continue;
    }
    Value value;
    if (!conversion.name.empty()) {
      if (named == nullptr) return TypeError("format requires a mapping");
      const Value* found = named->FindText(conversion.name);
      if (found == nullptr) {
        return absl::InvalidArgumentError(
            absl::StrFormat("format: no value for '%s'", conversion.name));
      }
      value = *found;
      used_names = true;
    } else {
      if (next >= values.size()) return TypeError("not enough arguments for format string");
      value = values[next++];
    }
    ESSOR_RETURN_IF_ERROR(runtime.ChargeValue(value));
    ESSOR_RETURN_IF_ERROR(runtime.ChargeBytes(static_cast<uint64_t>(conversion.width) + 16));
    ESSOR_ASSIGN_OR_RETURN(const std::string text, FormatValue(conversion, value));
    result.append(text);
  }
  if (next < values.size() && !used_names && named == nullptr) {
    return TypeError("not all arguments converted during string formatting");
  }
  return result;
}

absl::StatusOr<std::string> FormatBraces(Runtime& runtime, std::string_view format,
                                         const CallArguments& arguments) {
  std::string result;
  size_t next = 0;
  for (size_t i = 0; i < format.size();) {
    const char c = format[i++];
    if (c != '{' && c != '}') {
      result.push_back(c);
      continue;
    }
    if (i < format.size() && format[i] == c) {  // doubled: a literal brace
      result.push_back(c);
      ++i;
      continue;
    }
    const size_t close = c == '{' ? format.find('}', i) : std::string_view::npos;
    if (close == std::string_view::npos) {
      return absl::InvalidArgumentError(
          absl::StrFormat("Single '%c' encountered in format string", c));
    }
    std::string_view field = format.substr(i, close - i);
    i = close + 1;
    if (field.find_first_of("{:!") != std::string_view::npos) {
      return absl::InvalidArgumentError(
          "format(): conversions and format specifications are not supported");
    }
    ESSOR_ASSIGN_OR_RETURN(const Value value, FieldValue(runtime, field, arguments, &next));
    ESSOR_RETURN_IF_ERROR(runtime.ChargeValue(value));
    result.append(ToText(value));
  }
  return result;
}

std::string FormatTime(std::string_view format, absl::Time time) {
  // absl follows strftime in the C locale, but has own meanings for %E and %O.
  std::string passed;
  for (size_t i = 0; i < format.size(); ++i) {
    passed.push_back(format[i]);
    if (format[i] == '%' && i + 1 < format.size()) {
      const char next = format[++i];
      if (next == 'E' || next == 'O') passed.push_back('%');
      passed.push_back(next);
    }
  }
  return absl::FormatTime(passed, time, absl::UTCTimeZone());
}

}  // namespace essor::model::jinja
