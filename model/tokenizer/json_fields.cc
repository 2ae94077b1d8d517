#include "model/tokenizer/json_fields.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "common/python_json.h"
#include "common/status_macros.h"

namespace essor::model {

absl::Status FieldError(std::string_view path, std::string_view problem) {
  return absl::InvalidArgumentError(absl::StrFormat("%s: %s", path, problem));
}

std::string JsonObject::PathOf(std::string_view key) const {
  return path.empty() ? std::string(key) : absl::StrFormat("%s.%s", path, key);
}

std::optional<simdjson::dom::element> JsonObject::Find(std::string_view key) const {
  simdjson::dom::element element;
  if (object.at_key(key).get(element) != simdjson::SUCCESS || element.is_null()) {
    return std::nullopt;
  }
  return element;
}

absl::StatusOr<simdjson::dom::element> JsonObject::Get(std::string_view key) const {
  const auto element = Find(key);
  if (!element.has_value()) return FieldError(PathOf(key), "missing");
  return *element;
}

absl::StatusOr<bool> JsonObject::GetBool(std::string_view key, bool absent) const {
  const auto element = Find(key);
  if (!element.has_value()) return absent;
  bool value = false;
  if (element->get(value) != simdjson::SUCCESS) return FieldError(PathOf(key), "not a boolean");
  return value;
}

absl::StatusOr<std::string> JsonObject::GetString(std::string_view key) const {
  ESSOR_ASSIGN_OR_RETURN(const simdjson::dom::element element, Get(key));
  std::string_view value;
  if (element.get(value) != simdjson::SUCCESS) return FieldError(PathOf(key), "not a string");
  return std::string(value);
}

absl::StatusOr<uint64_t> JsonObject::GetUnsigned(std::string_view key) const {
  ESSOR_ASSIGN_OR_RETURN(const simdjson::dom::element element, Get(key));
  uint64_t value = 0;
  if (element.get(value) != simdjson::SUCCESS) {
    return FieldError(PathOf(key), "not a non-negative integer");
  }
  return value;
}

absl::StatusOr<simdjson::dom::array> JsonObject::GetArray(std::string_view key) const {
  ESSOR_ASSIGN_OR_RETURN(const simdjson::dom::element element, Get(key));
  simdjson::dom::array value;
  if (element.get(value) != simdjson::SUCCESS) return FieldError(PathOf(key), "not an array");
  return value;
}

absl::StatusOr<JsonObject> JsonObject::GetObject(std::string_view key) const {
  ESSOR_ASSIGN_OR_RETURN(const simdjson::dom::element element, Get(key));
  return AsObject(element, PathOf(key));
}

absl::StatusOr<JsonObject> AsObject(simdjson::dom::element element, std::string path) {
  simdjson::dom::object object;
  if (element.get(object) != simdjson::SUCCESS) return FieldError(path, "not an object");
  return JsonObject{.object = object, .path = std::move(path)};
}

absl::Status InFile(const absl::Status& status, std::string_view file) {
  if (status.ok()) return status;
  return absl::Status(status.code(),
                      absl::StrFormat("%s: %s", file, std::string(status.message())));
}

absl::Status ReadJsonObject(std::string_view json, std::string_view file,
                            absl::FunctionRef<absl::Status(const JsonObject&)> read) {
  simdjson::dom::parser parser;
  simdjson::dom::element document;
  const simdjson::error_code error = ParsePythonJson(json, &parser).get(document);
  if (error != simdjson::SUCCESS) {
    return InFile(absl::InvalidArgumentError(simdjson::error_message(error)), file);
  }
  simdjson::dom::object object;
  if (document.get(object) != simdjson::SUCCESS) {
    return InFile(absl::InvalidArgumentError("the document is not an object"), file);
  }
  return InFile(read(JsonObject{.object = object, .path = ""}), file);
}

}  // namespace essor::model
