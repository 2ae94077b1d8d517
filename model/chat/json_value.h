// JSON text as template values, the way Python's json.loads reads it: key order kept, 1 an int, 1.0
// a float, integers of any size.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "model/chat/value.h"

namespace essor::model::jinja {

// InvalidArgument, "`what`: ...", for malformed JSON (also lone surrogates and invalid UTF-8) and
// for nesting beyond kValueDepthMax.
absl::StatusOr<Value> ParseJson(std::string_view json, std::string_view what);

}  // namespace essor::model::jinja
