#include "coordinator/http/json_body.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "common/error_details.h"

namespace essor::coordinator {

using simdjson::dom::element;
using simdjson::dom::element_type;

absl::Status JsonBody::Parse(std::string_view text) {
  element root;
  const auto error = parser_.parse(text.data(), text.size()).get(root);
  if (error != simdjson::SUCCESS) {
    return absl::InvalidArgumentError(
        absl::StrCat("the body is not valid JSON: ", simdjson::error_message(error)));
  }
  if (root.get(object_) != simdjson::SUCCESS) {
    return absl::InvalidArgumentError("the body must be a JSON object");
  }
  std::vector<std::string_view> keys;
  for (const auto field : object_) keys.push_back(field.key);
  std::sort(keys.begin(), keys.end());
  const auto twice = std::adjacent_find(keys.begin(), keys.end());
  if (twice == keys.end()) return absl::OkStatus();
  const std::string name(twice->substr(0, 64));
  return FieldError(name, "the field is given twice");
}

std::optional<element> JsonBody::Find(std::string_view field) const {
  element value;
  if (object_.at_key(field).get(value) != simdjson::SUCCESS || value.is_null()) return std::nullopt;
  return value;
}

absl::StatusOr<std::optional<std::string>> JsonBody::String(const std::string& field) const {
  const auto value = Find(field);
  if (!value.has_value()) return std::optional<std::string>();
  std::string_view text;
  if (value->get(text) != simdjson::SUCCESS) return FieldError(field, "must be a string");
  return std::optional<std::string>(text);
}

absl::StatusOr<std::optional<double>> JsonBody::Number(const std::string& field) const {
  const auto value = Find(field);
  if (!value.has_value()) return std::optional<double>();
  double number = 0;
  if (value->get(number) != simdjson::SUCCESS) return FieldError(field, "must be a number");
  return std::optional<double>(number);
}

absl::StatusOr<std::optional<int64_t>> JsonBody::Integer(const std::string& field) const {
  const auto value = Find(field);
  if (!value.has_value()) return std::optional<int64_t>();
  int64_t number = 0;
  if (value->get(number) == simdjson::SUCCESS) return std::optional<int64_t>(number);
  // Above int64: as large as it gets, so that the range check says what is wrong.
  if (value->type() == element_type::UINT64) {
    return std::optional<int64_t>(std::numeric_limits<int64_t>::max());
  }
  return FieldError(field, "must be an integer");
}

absl::StatusOr<bool> JsonBody::Bool(const std::string& field, bool fallback) const {
  const auto value = Find(field);
  if (!value.has_value()) return fallback;
  bool flag = false;
  if (value->get(flag) != simdjson::SUCCESS) return FieldError(field, "must be true or false");
  return flag;
}

absl::StatusOr<std::vector<TokenId>> TokenArray(element value, const std::string& field) {
  simdjson::dom::array array;
  if (value.get(array) != simdjson::SUCCESS) {
    return FieldError(field, "must be an array of token ids");
  }
  std::vector<TokenId> ids;
  ids.reserve(array.size());
  for (const element item : array) {
    uint64_t id = 0;
    if (item.get(id) != simdjson::SUCCESS || id > std::numeric_limits<TokenId>::max()) {
      return FieldError(field, absl::StrCat("element ", ids.size(), " is not a token id"));
    }
    ids.push_back(static_cast<TokenId>(id));
  }
  return ids;
}

absl::StatusOr<std::vector<std::string>> StringArray(element value, const std::string& field) {
  simdjson::dom::array array;
  if (value.get(array) != simdjson::SUCCESS) return FieldError(field, "must be an array");
  std::vector<std::string> texts;
  for (const element item : array) {
    std::string_view text;
    if (item.get(text) != simdjson::SUCCESS) {
      return FieldError(field, absl::StrCat("element ", texts.size(), " is not a string"));
    }
    texts.emplace_back(text);
  }
  return texts;
}

}  // namespace essor::coordinator
