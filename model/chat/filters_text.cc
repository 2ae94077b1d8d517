// Filters that make or change text and numbers.
#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "model/chat/builtins.h"
#include "model/chat/python_format.h"
#include "model/chat/text.h"
#include "model/tokenizer/utf8.h"

namespace essor::model::jinja {
namespace {

// Deeper indentation than this is a mistake or an attack.
constexpr int64_t kIndentMax = 100;

// A filter that maps the object's text to another text.
template <std::string (*kMap)(std::string_view)>
absl::StatusOr<Value> MapText(Runtime& runtime, const Value& object,
                              const CallArguments& arguments) {
  ESSOR_RETURN_IF_ERROR(BoundArguments::Bind("filter", arguments, {}, 0).status());
  ESSOR_RETURN_IF_ERROR(runtime.ChargeValue(object));
  return Value(kMap(SoftText(object)));
}

absl::StatusOr<Value> Trim(Runtime& runtime, const Value& object, const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("trim", arguments, {"chars"}, 0));
  ESSOR_RETURN_IF_ERROR(runtime.ChargeValue(object));
  const std::string text = SoftText(object);
  if (bound[0] == nullptr || bound[0]->is_none()) return Value(StripRight(StripLeft(text)));
  ESSOR_ASSIGN_OR_RETURN(const std::string characters, bound.Text(0, ""));
  return Value(StripRight(StripLeft(text, characters), characters));
}

absl::StatusOr<Value> ToString(Runtime& runtime, const Value& object,
                               const CallArguments& arguments) {
  ESSOR_RETURN_IF_ERROR(BoundArguments::Bind("string", arguments, {}, 0).status());
  if (object.is_string()) return object;
  ESSOR_RETURN_IF_ERROR(runtime.ChargeValue(object));
  return Value(ToText(object));
}

absl::StatusOr<Value> Safe(Runtime& runtime, const Value& object, const CallArguments&) {
  ESSOR_RETURN_IF_ERROR(runtime.ChargeValue(object));
  return Value::Markup(ToText(object));
}

absl::StatusOr<Value> Escape(Runtime& runtime, const Value& object, const CallArguments&) {
  if (object.is_string() && object.as_string()->markup) return object;
  ESSOR_RETURN_IF_ERROR(runtime.ChargeValue(object));
  return Value::Markup(EscapeHtml(ToText(object)));
}

absl::StatusOr<Value> ReplaceText(Runtime& runtime, const Value& object,
                                  const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(const auto bound,
                         BoundArguments::Bind("replace", arguments, {"old", "new", "count"}, 2));
  CallArguments rest{.positional = {Value(SoftText(*bound[0])), Value(SoftText(*bound[1]))},
                     .keyword = {}};
  if (bound[2] != nullptr && !bound[2]->is_none()) rest.positional.push_back(*bound[2]);
  return CallMethod(runtime, Value(SoftText(object)), "replace", rest);
}

absl::StatusOr<Value> Indent(Runtime& runtime, const Value& object,
                             const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(const auto bound,
                         BoundArguments::Bind("indent", arguments, {"width", "first", "blank"}, 0));
  std::string indent(4, ' ');
  if (bound[0] != nullptr && bound[0]->is_string()) {
    indent = *bound[0]->as_text();
  } else {
    ESSOR_ASSIGN_OR_RETURN(const int64_t width, bound.Int(0, 4));
    if (width > kIndentMax) return absl::InvalidArgumentError("indent() by more than 100");
    indent.assign(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ');
  }
  const std::string text = SoftText(object) + "\n";
  const std::vector<std::string_view> lines = SplitLines(text, /*keep_ends=*/false);
  ESSOR_RETURN_IF_ERROR(runtime.ChargeBytes(text.size() + lines.size() * (indent.size() + 16)));
  std::string result;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) result.push_back('\n');
    // The first line only when asked; blank lines (after the first) only when asked.
    const bool wanted = i == 0 ? bound.Truth(1, false) : !lines[i].empty() || bound.Truth(2, false);
    if (wanted) result.append(indent);
    result.append(lines[i]);
  }
  return Value(std::move(result));
}

absl::StatusOr<Value> Center(Runtime& runtime, const Value& object,
                             const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind("center", arguments, {"width"}, 0));
  ESSOR_ASSIGN_OR_RETURN(const int64_t width, bound.Int(0, 80));
  return CallMethod(runtime, Value(SoftText(object)), "center",
                    {.positional = {Value(width)}, .keyword = {}});
}

absl::StatusOr<Value> Truncate(Runtime& runtime, const Value& object,
                               const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(
      const auto bound,
      BoundArguments::Bind("truncate", arguments, {"length", "killwords", "end", "leeway"}, 0));
  ESSOR_ASSIGN_OR_RETURN(const int64_t length, bound.Int(0, 255));
  ESSOR_ASSIGN_OR_RETURN(const std::string end, bound.Text(2, "..."));
  ESSOR_ASSIGN_OR_RETURN(const int64_t leeway, bound.Int(3, 5));
  const std::string text = SoftText(object);
  ESSOR_RETURN_IF_ERROR(runtime.ChargeBytes(text.size() * 8));
  const std::vector<size_t> offsets = CodePointOffsets(text);
  const auto size = static_cast<int64_t>(offsets.size()) - 1;
  const auto end_size = static_cast<int64_t>(CountCodePoints(end));
  if (length < end_size) return absl::InvalidArgumentError("truncate() to less than its end");
  if (leeway < 0) return absl::InvalidArgumentError("truncate() with a negative leeway");
  if (size - leeway <= length) return Value(text);
  std::string kept = text.substr(0, offsets[static_cast<size_t>(length - end_size)]);
  if (!bound.Truth(1, false)) kept = kept.substr(0, kept.rfind(' '));
  return Value(kept + end);
}

absl::StatusOr<Value> WordCount(Runtime& runtime, const Value& object, const CallArguments&) {
  ESSOR_RETURN_IF_ERROR(runtime.ChargeValue(object));
  return Value(CountWords(SoftText(object)));
}

absl::StatusOr<Value> Format(Runtime& runtime, const Value& object,
                             const CallArguments& arguments) {
  if (!arguments.keyword.empty() && !arguments.positional.empty()) {
    return TypeError("format() takes positional or keyword arguments, not both");
  }
  Dict named;
  for (const auto& [name, value] : arguments.keyword) {
    ESSOR_RETURN_IF_ERROR(named.Set(Value(name), value));
  }
  ESSOR_ASSIGN_OR_RETURN(std::string text,
                         FormatPercent(runtime, SoftText(object), arguments.positional,
                                       arguments.keyword.empty() ? nullptr : &named));
  return Value(std::move(text));
}

absl::StatusOr<Value> ToJsonFilter(Runtime& runtime, const Value& object,
                                   const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(
      const auto bound,
      BoundArguments::Bind("tojson", arguments,
                           {"ensure_ascii", "indent", "separators", "sort_keys"}, 0));
  JsonOptions options;
  options.ensure_ascii = bound.Truth(0, false);
  options.sort_keys = bound.Truth(3, false);
  if (bound[1] != nullptr && !bound[1]->is_none()) {
    options.item_separator = ",";
    if (bound[1]->is_string()) {
      options.indent = *bound[1]->as_text();
    } else {
      ESSOR_ASSIGN_OR_RETURN(const int64_t width, bound.Int(1, 0));
      if (width > kIndentMax) return absl::InvalidArgumentError("tojson() indented by over 100");
      options.indent = std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ');
    }
  }
  if (bound[2] != nullptr && !bound[2]->is_none()) {
    const List* pair = bound[2]->as_list();
    if (pair == nullptr || pair->items.size() != 2 || !pair->items[0].is_string() ||
        !pair->items[1].is_string()) {
      return TypeError("tojson(): separators must be two strings");
    }
    options.item_separator = *pair->items[0].as_text();
    options.key_separator = *pair->items[1].as_text();
  }
  // Indentation multiplies with depth and separators with items: an upper bound of the output.
  const Extent extent = ExtentOf(object);
  const uint64_t per_item =
      options.item_separator.size() + options.key_separator.size() +
      options.indent.value_or("").size() * static_cast<uint64_t>(extent.depth);
  ESSOR_RETURN_IF_ERROR(runtime.ChargeBytes(extent.weight + extent.weight / 8 * per_item));
  ESSOR_ASSIGN_OR_RETURN(std::string json, ToJson(object, options));
  return Value(std::move(json));
}

// int() of a string: optional sign and digits with single underscores. nullopt otherwise.
std::optional<Value> ParseInteger(std::string_view text, int64_t base) {
  text = StripRight(StripLeft(text));
  const bool negative = !text.empty() && text[0] == '-';
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) text.remove_prefix(1);
  constexpr std::pair<int64_t, std::string_view> kPrefixes[] = {{16, "0x"}, {8, "0o"}, {2, "0b"}};
  for (const auto& [prefix_base, prefix] : kPrefixes) {
    if (base == prefix_base && Lower(text.substr(0, 2)) == prefix) text.remove_prefix(2);
  }
  std::string digits;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '_' && i > 0 && text[i - 1] != '_' && i + 1 < text.size()) continue;
    digits.push_back(text[i]);
  }
  if (digits.empty()) return std::nullopt;
  if (base == 10) {
    if (digits.find_first_not_of("0123456789") != std::string::npos) return std::nullopt;
    return IntegerFromDigits(negative ? "-" + digits : digits);
  }
  errno = 0;
  char* end = nullptr;
  const int64_t value = std::strtoll(digits.c_str(), &end, static_cast<int>(base));
  if (errno != 0 || *end != '\0') return std::nullopt;
  return Value(negative ? -value : value);
}

// float() of a string. strtod alone would take hexadecimal and text behind the number.
std::optional<double> ParseFloat(std::string_view text) {
  const std::string trimmed(StripRight(StripLeft(text)));
  if (trimmed.empty() || trimmed.find_first_of("xXpP") != std::string::npos) return std::nullopt;
  char* end = nullptr;
  const double value = std::strtod(trimmed.c_str(), &end);
  if (end != trimmed.c_str() + trimmed.size()) return std::nullopt;
  return value;
}

// A float as Python's int() cuts it; nullopt for infinities, NaN and beyond 64 bits.
std::optional<Value> TruncateFloat(double value) {
  if (!(std::abs(value) < 9.2e18)) return std::nullopt;
  return Value(static_cast<int64_t>(value));
}

absl::StatusOr<Value> ToInt(Runtime& runtime, const Value& object, const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(const auto bound,
                         BoundArguments::Bind("int", arguments, {"default", "base"}, 0));
  ESSOR_ASSIGN_OR_RETURN(const int64_t base, bound.Int(1, 10));
  if (base < 2 || base > 36) return absl::InvalidArgumentError("int() base must be 2 to 36");
  if (object.is_undefined()) return UndefinedError(object);
  std::optional<Value> result;
  if (object.as_big_int()) return object;
  if (object.is_float()) {
    result = TruncateFloat(*object.as_float());
  } else if (object.is_small_number()) {
    return Value(object.ToInt());
  } else if (const std::string* text = object.as_text()) {
    ESSOR_RETURN_IF_ERROR(runtime.ChargeBytes(text->size()));
    result = ParseInteger(*text, base);
    if (const auto number = result.has_value() ? std::nullopt : ParseFloat(*text)) {
      result = TruncateFloat(*number);
    }
  }
  if (result.has_value()) return *result;
  return bound[0] == nullptr ? Value(0) : *bound[0];
}

absl::StatusOr<Value> ToFloat(Runtime&, const Value& object, const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(const auto bound,
                         BoundArguments::Bind("float", arguments, {"default"}, 0));
  if (object.is_undefined()) return UndefinedError(object);
  if (object.is_small_number()) return Value(object.ToDouble());
  const std::string* text = object.as_text();
  const auto number = text == nullptr ? std::nullopt : ParseFloat(*text);
  if (number.has_value()) return Value(*number);
  return bound[0] == nullptr ? Value(0.0) : *bound[0];
}

absl::StatusOr<Value> Abs(Runtime&, const Value& object, const CallArguments&) {
  if (object.is_undefined()) return UndefinedError(object);
  if (object.is_float()) return Value(std::abs(*object.as_float()));
  if (object.is_small_number() && object.ToInt() != INT64_MIN) {
    return Value(std::abs(object.ToInt()));
  }
  return TypeError(absl::StrFormat("bad operand type for abs(): '%s'", TypeName(object)));
}

absl::StatusOr<Value> Round(Runtime&, const Value& object, const CallArguments& arguments) {
  ESSOR_ASSIGN_OR_RETURN(const auto bound,
                         BoundArguments::Bind("round", arguments, {"precision", "method"}, 0));
  ESSOR_ASSIGN_OR_RETURN(const int64_t precision, bound.Int(0, 0));
  ESSOR_ASSIGN_OR_RETURN(const std::string method, bound.Text(1, "common"));
  if (object.is_undefined()) return UndefinedError(object);
  if (!object.is_small_number()) {
    return TypeError(absl::StrFormat("type %s doesn't define __round__ method", TypeName(object)));
  }
  const double value = object.ToDouble();
  if (method == "common") {
    if (!object.is_float()) return Value(object.ToInt());
    if (precision < 0 || precision > 300 || !std::isfinite(value)) return Value(value);
    // Correctly rounded decimal text, read back, is what Python's round() gives.
    return Value(
        std::strtod(absl::StrFormat("%.*f", static_cast<int>(precision), value).c_str(), nullptr));
  }
  const double scale = std::pow(10.0, static_cast<double>(precision));
  if (method == "ceil") return Value(std::ceil(value * scale) / scale);
  if (method == "floor") return Value(std::floor(value * scale) / scale);
  return absl::InvalidArgumentError("method must be common, ceil or floor");
}

}  // namespace

std::string SoftText(const Value& value) { return ToText(value); }

std::vector<FilterEntry> TextFilters() {
  return {
      {"abs", Abs},
      {"capitalize", MapText<Capitalize>},
      {"center", Center},
      {"e", Escape},
      {"escape", Escape},
      {"float", ToFloat},
      {"format", Format},
      {"indent", Indent},
      {"int", ToInt},
      {"lower", MapText<Lower>},
      {"replace", ReplaceText},
      {"round", Round},
      {"safe", Safe},
      {"string", ToString},
      {"title", MapText<TitleWords>},
      {"tojson", ToJsonFilter},
      {"trim", Trim},
      {"truncate", Truncate},
      {"upper", MapText<Upper>},
      {"wordcount", WordCount},
  };
}

}  // namespace essor::model::jinja
