// Calls written as Python: name(key=literal, ...), as Llama 4 does.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "model/chat/output/json_scanner.h"
#include "model/chat/value.h"

namespace essor::model {

// Finds, byte by byte, the parenthesis that closes an argument list whose opening one has been
// read. Thread-compatible.
class PythonArgumentScanner {
 public:
  // kDone with the closing parenthesis; kFailed with a bracket that fits nowhere, a line break in a
  // string, or nesting beyond kCallDepthMax.
  ScanResult Push(char c);

 private:
  std::string closers_ = ")";
  char quote_ = 0;  // of the open string
  bool escaped_ = false;
};

// "city='Rome', days=3" as a dict: keyword arguments whose values are literals (strings with
// Python's escapes, numbers, True, False, None, also true, false, null; lists, dicts with string
// keys). `text` is valid UTF-8. InvalidArgument for everything else, for a name given twice
// and for nesting beyond kCallDepthMax.
absl::StatusOr<jinja::Value> ParsePythonArguments(std::string_view text);

}  // namespace essor::model
