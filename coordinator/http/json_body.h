// Reading a JSON object whose fields have known types.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/ids.h"
#include "simdjson.h"

namespace essor::coordinator {

// A parsed request body. Errors are InvalidArgument naming the field; null counts as absent.
// Thread-compatible.
class JsonBody {
 public:
  // Refuses what is not one JSON object, and an object that names a field twice.
  absl::Status Parse(std::string_view text);

  // The field, or nullopt when it is absent or null.
  std::optional<simdjson::dom::element> Find(std::string_view field) const;

  absl::StatusOr<std::optional<std::string>> String(const std::string& field) const;
  absl::StatusOr<std::optional<double>> Number(const std::string& field) const;
  absl::StatusOr<std::optional<int64_t>> Integer(const std::string& field) const;
  absl::StatusOr<bool> Bool(const std::string& field, bool fallback) const;

 private:
  simdjson::dom::parser parser_;
  simdjson::dom::object object_;
};

// An array of token ids; `field` is named in errors.
absl::StatusOr<std::vector<TokenId>> TokenArray(simdjson::dom::element element,
                                                const std::string& field);
// An array of strings.
absl::StatusOr<std::vector<std::string>> StringArray(simdjson::dom::element element,
                                                     const std::string& field);

}  // namespace essor::coordinator
