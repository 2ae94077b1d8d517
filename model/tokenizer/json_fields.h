// Typed reading of the fields of tokenizer.json and tokenizer_config.json; every error names the
// field's path, and the caller adds the file's name.
#pragma once

#include <simdjson.h>

#include <optional>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"

namespace essor::model {

// An object and where it stands, for example "pre_tokenizer.pretokenizers[1]".
struct JsonObject {
  simdjson::dom::object object;
  std::string path;

  std::string PathOf(std::string_view key) const;
  // Absent and null are the same in tokenizer.json.
  std::optional<simdjson::dom::element> Find(std::string_view key) const;

  absl::StatusOr<simdjson::dom::element> Get(std::string_view key) const;
  absl::StatusOr<bool> GetBool(std::string_view key, bool absent) const;
  absl::StatusOr<std::string> GetString(std::string_view key) const;
  absl::StatusOr<uint64_t> GetUnsigned(std::string_view key) const;
  absl::StatusOr<simdjson::dom::array> GetArray(std::string_view key) const;
  absl::StatusOr<JsonObject> GetObject(std::string_view key) const;
};

// `element` as an object, with an error naming `path`.
absl::StatusOr<JsonObject> AsObject(simdjson::dom::element element, std::string path);

absl::Status FieldError(std::string_view path, std::string_view problem);

// `status` with `file` before its message.
absl::Status InFile(const absl::Status& status, std::string_view file);

// Calls read(root) for the object that `json` is; errors, those of `read` too, name `file`.
absl::Status ReadJsonObject(std::string_view json, std::string_view file,
                            absl::FunctionRef<absl::Status(const JsonObject&)> read);

}  // namespace essor::model
