#include "model/chat/output/tool_schemas.h"

#include <cstdint>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "model/chat/json_value.h"
#include "model/chat/output/json_scanner.h"

namespace essor::model {
namespace {

using jinja::Dict;
using jinja::List;
using jinja::Value;

// Sets of JSON types.
using TypeSet = uint32_t;
constexpr TypeSet kString = 1, kNumber = 2, kBoolean = 4, kNull = 8, kObject = 16, kArray = 32;

// How deep anyOf and its like are followed.
constexpr int kSchemaDepthMax = 8;

TypeSet TypeNamed(std::string_view name) {
  if (name == "string") return kString;
  if (name == "number" || name == "integer") return kNumber;
  if (name == "boolean") return kBoolean;
  if (name == "null") return kNull;
  if (name == "object") return kObject;
  if (name == "array") return kArray;
  return 0;
}

TypeSet TypeOf(const Value& value) {
  if (value.is_string()) return kString;
  if (value.is_bool()) return kBoolean;
  if (value.is_none()) return kNull;
  if (value.as_dict() != nullptr) return kObject;
  if (value.as_list() != nullptr) return kArray;
  return kNumber;
}

const Value* Field(const Value* value, std::string_view name) {
  const Dict* dict = value == nullptr ? nullptr : value->as_dict();
  return dict == nullptr ? nullptr : dict->FindText(name);
}

TypeSet TypesAllowed(const Value& schema, int depth) {
  TypeSet types = 0;
  if (const Value* type = Field(&schema, "type")) {
    if (const std::string* name = type->as_text()) types |= TypeNamed(*name);
    if (const List* names = type->as_list()) {
      for (const Value& name : names->items) {
        if (name.as_text() != nullptr) types |= TypeNamed(*name.as_text());
      }
    }
  }
  if (const Value* nullable = Field(&schema, "nullable")) {
    if (jinja::IsTrue(*nullable)) types |= kNull;
  }
  const Value* choices = Field(&schema, "enum");
  if (types == 0 && choices != nullptr && choices->as_list() != nullptr) {
    for (const Value& choice : choices->as_list()->items) types |= TypeOf(choice);
  }
  if (depth >= kSchemaDepthMax) return types;
  for (const char* name : {"anyOf", "oneOf", "allOf"}) {
    const Value* schemas = Field(&schema, name);
    if (schemas == nullptr || schemas->as_list() == nullptr) continue;
    for (const Value& part : schemas->as_list()->items) types |= TypesAllowed(part, depth + 1);
  }
  return types;
}

}  // namespace

absl::StatusOr<Value> ParseJsonValue(std::string_view text) {
  const std::string wrapped = absl::StrCat("{\"value\":", std::string(text), "}");
  JsonScanner scanner;
  for (size_t i = 0; i < wrapped.size(); ++i) {
    const ScanResult result = scanner.Push(wrapped[i]);
    const bool last = i + 1 == wrapped.size();
    // A key of its own would make two values of one text.
    const bool second_key = scanner.ended_key() != nullptr && i > 7;
    if (result == ScanResult::kFailed || second_key || (result == ScanResult::kDone) != last) {
      return absl::InvalidArgumentError("not one JSON value");
    }
  }
  ESSOR_ASSIGN_OR_RETURN(const Value object, jinja::ParseJson(wrapped, "argument"));
  return *object.as_dict()->FindText("value");
}

absl::StatusOr<ToolSchemas> ToolSchemas::Parse(std::string_view tools_json) {
  ToolSchemas result;
  if (tools_json.empty()) return result;
  ESSOR_ASSIGN_OR_RETURN(const Value tools, jinja::ParseJson(tools_json, "tools"));
  if (tools.as_list() == nullptr) return absl::InvalidArgumentError("tools: not an array");
  for (const Value& tool : tools.as_list()->items) {
    if (tool.as_dict() == nullptr) return absl::InvalidArgumentError("tools: not all are objects");
    const Value* function = Field(&tool, "function");
    if (function == nullptr) function = &tool;
    const Value* name = Field(function, "name");
    if (name == nullptr || !name->is_string()) continue;
    const Value* properties = Field(Field(function, "parameters"), "properties");
    ESSOR_RETURN_IF_ERROR(result.tools_.Set(*name, properties == nullptr ? Value() : *properties));
  }
  return result;
}

Value ToolSchemas::Argument(std::string_view tool, std::string_view parameter,
                            std::string_view text) const {
  const Value* schema = Field(tools_.FindText(tool), parameter);
  const TypeSet types = schema == nullptr ? 0 : TypesAllowed(*schema, 0);
  if (types == kString) return Value(text);
  const std::string trimmed(absl::StripAsciiWhitespace(std::string(text)));
  if ((types & kBoolean) != 0 && (trimmed == "True" || trimmed == "False")) {
    return Value(trimmed == "True");
  }
  if ((types & kNull) != 0 && trimmed == "None") return Value();
  const absl::StatusOr<Value> value = ParseJsonValue(trimmed);
  if (!value.ok() || value->is_string()) return Value(text);
  if (types != 0 && (types & TypeOf(*value)) == 0) return Value(text);
  return *value;
}

}  // namespace essor::model
