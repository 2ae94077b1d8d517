// Template source to syntax tree.
#pragma once

#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "model/chat/ast.h"

namespace essor::model::jinja {

// How deep expressions and blocks may nest in the source.
inline constexpr int kSyntaxDepthMax = 200;

// InvalidArgument ("template line N: ...") for a syntax error, an unknown filter, test or tag, and
// tags outside the subset (block, extends, include, import, ...).
absl::StatusOr<std::unique_ptr<Template>> ParseTemplate(std::string_view source);

}  // namespace essor::model::jinja
