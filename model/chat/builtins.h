// Everything templates can use by name: filters, tests, functions and methods of values.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/chat/runtime.h"
#include "model/chat/value.h"

namespace essor::model::jinja {

using FilterFunction = absl::StatusOr<Value> (*)(Runtime& runtime, const Value& object,
                                                 const CallArguments& arguments);
using TestFunction = absl::StatusOr<bool> (*)(Runtime& runtime, const Value& object,
                                              const CallArguments& arguments);

// Null for an unknown name.
FilterFunction FindFilter(std::string_view name);
TestFunction FindTest(std::string_view name);

// The tables that FindFilter() searches.
struct FilterEntry {
  std::string_view name;
  FilterFunction function;
};
std::vector<FilterEntry> TextFilters();
std::vector<FilterEntry> SequenceFilters();
std::vector<FilterEntry> SelectionFilters();

// A (key, value) tuple for each entry.
absl::StatusOr<Value> DictItems(const Dict& dict, ListKind kind);

// Global functions: range, dict, namespace, joiner, raise_exception, strftime_now.
std::vector<std::string> FunctionNames();
// `made` receives each namespace created, see Interpreter.
absl::StatusOr<Value> CallFunction(Runtime& runtime, const std::string& name,
                                   const CallArguments& arguments,
                                   std::vector<std::shared_ptr<Namespace>>* made);
// The status of raise_exception(); its message is the user's.
bool IsRaisedByTemplate(const absl::Status& status);

// Whether values of this type have the method.
bool HasMethod(const Value& receiver, std::string_view name);
absl::StatusOr<Value> CallMethod(Runtime& runtime, const Value& receiver, const std::string& name,
                                 const CallArguments& arguments);

// The text of an operand that Jinja's text filters turn into a string first.
std::string SoftText(const Value& value);

// `template % values` and the `format` filter: printf-style formatting.
absl::StatusOr<std::string> FormatPercent(Runtime& runtime, std::string_view format,
                                          const std::vector<Value>& values, const Dict* named);
// str.format().
absl::StatusOr<std::string> FormatBraces(Runtime& runtime, std::string_view format,
                                         const CallArguments& arguments);
// strftime() in the C locale, UTC.
std::string FormatTime(std::string_view format, absl::Time time);

}  // namespace essor::model::jinja
