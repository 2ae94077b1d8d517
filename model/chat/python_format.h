// Values as text, the way Python prints them: str(), repr(), json.dumps().
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "model/chat/value.h"

namespace essor::model::jinja {

// repr() of a float: the shortest digits that read back the same.
std::string FormatFloat(double value);

// str(): strings as they are, undefined as nothing.
std::string ToText(const Value& value);
// repr(): strings quoted.
std::string ToRepr(const Value& value);

struct JsonOptions {
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::optional<std::string> indent;  // what one level is indented by; nullopt: one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
// json.dumps(). InvalidArgument for values JSON has no form for. The guard characters of
// model/tokenizer/guards.h stay unescaped under ensure_ascii, so that they can be removed again.
absl::StatusOr<std::string> ToJson(const Value& value, const JsonOptions& options);

}  // namespace essor::model::jinja
