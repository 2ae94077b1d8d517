// JSON as Python's json module writes it: models are published with its files.
#pragma once

#include <simdjson.h>

#include <string_view>

namespace essor {

// Parses `json` as simdjson does. Only what simdjson refuses is looked at again, in linear time,
// for what Python writes beyond JSON or beyond 64 bits, outside of strings: whole numbers below
// -10^18 or of 20 digits and more (model_max_length is int(1e30) where nobody chose one) are read
// as doubles, NaN, Infinity and -Infinity as null. Errors are simdjson's. The result lives as long
// as `parser` and until its next use; `json` may go before.
simdjson::simdjson_result<simdjson::dom::element> ParsePythonJson(std::string_view json,
                                                                  simdjson::dom::parser* parser);

}  // namespace essor
