#include "model/chat/json_value.h"

#include <simdjson.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "model/chat/text.h"

namespace essor::model::jinja {
namespace {

namespace ondemand = simdjson::ondemand;

absl::Status JsonError(simdjson::error_code error) {
  return absl::InvalidArgumentError(simdjson::error_message(error));
}

// RFC 8259 section 6. simdjson hands out what begins like a number, unchecked.
bool IsJsonNumber(std::string_view text) {
  const auto skip_digits = [&text] {
    const size_t end = std::min(text.find_first_not_of("0123456789"), text.size());
    text.remove_prefix(end);
    return end;
  };
  if (text.starts_with('-')) text.remove_prefix(1);
  const bool zero = text.starts_with('0');
  const size_t digits = skip_digits();
  if (digits == 0 || (zero && digits > 1)) return false;
  if (text.starts_with('.')) {
    text.remove_prefix(1);
    if (skip_digits() == 0) return false;
  }
  if (text.starts_with('e') || text.starts_with('E')) {
    text.remove_prefix(1);
    if (text.starts_with('+') || text.starts_with('-')) text.remove_prefix(1);
    if (skip_digits() == 0) return false;
  }
  return text.empty();
}

// The number as written, which is all that keeps 1 and 1.0 and long integers apart.
absl::StatusOr<Value> ParseNumber(std::string_view token) {
  token = StripRight(token);
  if (!IsJsonNumber(token)) return JsonError(simdjson::NUMBER_ERROR);
  if (token.find_first_of(".eE") == std::string_view::npos) return IntegerFromDigits(token);
  return Value(std::strtod(std::string(token).c_str(), nullptr));
}

absl::StatusOr<Value> Convert(ondemand::value value, int depth);

absl::StatusOr<Value> ConvertArray(ondemand::array array, int depth) {
  std::vector<Value> items;
  for (auto element : array) {
    ondemand::value item;
    if (const auto error = element.get(item)) return JsonError(error);
    ESSOR_ASSIGN_OR_RETURN(Value converted, Convert(item, depth + 1));
    items.push_back(std::move(converted));
  }
  return MakeList(std::move(items));
}

absl::StatusOr<Value> ConvertObject(ondemand::object object, int depth) {
  auto dict = std::make_shared<Dict>();
  for (auto entry : object) {
    std::string_view key;
    if (const auto error = entry.unescaped_key().get(key)) return JsonError(error);
    const std::string name(key);
    ondemand::value item;
    if (const auto error = entry.value().get(item)) return JsonError(error);
    ESSOR_ASSIGN_OR_RETURN(Value converted, Convert(item, depth + 1));
    ESSOR_RETURN_IF_ERROR(dict->Set(Value(name), std::move(converted)));
  }
  return Value(std::shared_ptr<const Dict>(std::move(dict)));
}

// A scalar of a value or of a document that is nothing else.
template <typename Source>
absl::StatusOr<Value> ConvertScalar(Source& value, ondemand::json_type type) {
  switch (type) {
    case ondemand::json_type::string: {
      std::string_view text;
      if (const auto error = value.get_string().get(text)) return JsonError(error);
      return Value(text);
    }
    case ondemand::json_type::boolean: {
      bool flag = false;
      if (const auto error = value.get_bool().get(flag)) return JsonError(error);
      return Value(flag);
    }
    case ondemand::json_type::number: {
      const std::string token = std::string(value.raw_json_token());
      // Validates the syntax; integers that do not fit are the ones it may refuse.
      ondemand::number number;
      const auto error = value.get_number().get(number);
      const bool integer =
          !token.empty() && StripRight(token).find_first_not_of("-0123456789") == std::string::npos;
      if (error && !(integer && token.size() > 18)) return JsonError(error);
      return ParseNumber(token);
    }
    default:
      break;
  }
  // Converting the result to bool would throw on a literal that only begins like null.
  simdjson::simdjson_result<bool> is_null = value.is_null();
  bool null = false;
  if (const auto error = std::move(is_null).get(null)) return JsonError(error);
  if (!null) return absl::InvalidArgumentError("not a JSON value");
  return Value();
}

absl::StatusOr<Value> Convert(ondemand::value value, int depth) {
  if (depth > kValueDepthMax) {
    return absl::InvalidArgumentError(absl::StrFormat("nested deeper than %d", kValueDepthMax));
  }
  ondemand::json_type type;
  if (const auto error = value.type().get(type)) return JsonError(error);
  if (type == ondemand::json_type::array) {
    ondemand::array array;
    if (const auto error = value.get_array().get(array)) return JsonError(error);
    return ConvertArray(array, depth);
  }
  if (type == ondemand::json_type::object) {
    ondemand::object object;
    if (const auto error = value.get_object().get(object)) return JsonError(error);
    return ConvertObject(object, depth);
  }
  return ConvertScalar(value, type);
}

absl::StatusOr<Value> ConvertDocument(std::string_view json) {
  if (!simdjson::validate_utf8(json.data(), json.size())) {
    return JsonError(simdjson::UTF8_ERROR);
  }
  ondemand::parser parser;
  const simdjson::padded_string padded(json);
  ondemand::document document;
  if (const auto error = parser.iterate(padded).get(document)) return JsonError(error);
  ondemand::json_type type;
  if (const auto error = document.type().get(type)) return JsonError(error);
  absl::StatusOr<Value> result;
  if (type == ondemand::json_type::array) {
    ondemand::array array;
    if (const auto error = document.get_array().get(array)) return JsonError(error);
    result = ConvertArray(array, 1);
  } else if (type == ondemand::json_type::object) {
    ondemand::object object;
    if (const auto error = document.get_object().get(object)) return JsonError(error);
    result = ConvertObject(object, 1);
  } else {
    return absl::InvalidArgumentError("neither an array nor an object");
  }
  ESSOR_RETURN_IF_ERROR(result.status());
  // Behind the last token there is no location.
  if (document.current_location().error() != simdjson::OUT_OF_BOUNDS) {
    return JsonError(simdjson::TRAILING_CONTENT);
  }
  return result;
}

}  // namespace

absl::StatusOr<Value> ParseJson(std::string_view json, std::string_view what) {
  absl::StatusOr<Value> result = ConvertDocument(json);
  if (result.ok()) return result;
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: %s", what, std::string(result.status().message())));
}

}  // namespace essor::model::jinja
