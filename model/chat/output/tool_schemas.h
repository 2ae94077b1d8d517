// What the request's tools say about the arguments of a call.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "model/chat/value.h"

namespace essor::model {

// The tools of a request. Immutable; thread-safe.
class ToolSchemas {
 public:
  ToolSchemas() = default;
  // `tools_json`: an array of {"type": "function", "function": {"name", "parameters"}} or of the
  // inner objects alone, as in the OpenAI API; empty for no tools. InvalidArgument if it is not an
  // array of objects. Schemas that make no sense give no types.
  static absl::StatusOr<ToolSchemas> Parse(std::string_view tools_json);

  bool empty() const { return tools_.size() == 0; }
  bool Knows(std::string_view tool) const { return tools_.FindText(tool) != nullptr; }

  // The argument that `text` stands for in syntaxes that write arguments without quotes: if the
  // parameter's schema allows nothing but strings, the text itself; otherwise the JSON value in the
  // text where the schema allows its type (or there is no schema); else the text again. Python's
  // True, False and None count where booleans and null are allowed. `text` is valid UTF-8.
  jinja::Value Argument(std::string_view tool, std::string_view parameter,
                        std::string_view text) const;

 private:
  jinja::Dict tools_;  // by name: "parameters"."properties"
};

// One JSON value of any kind with white space around it; InvalidArgument for anything else and for
// nesting beyond kCallDepthMax.
absl::StatusOr<jinja::Value> ParseJsonValue(std::string_view text);

}  // namespace essor::model
