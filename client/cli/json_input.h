// Reads the JSON that commands take: token ids and texts. Errors are InvalidArgument naming the
// source and the index of the element.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "simdjson.h"

namespace essor::cli {

inline constexpr uint64_t kJsonInputBytesMax = uint64_t{1} << 30;

// All of stdin, at most kJsonInputBytesMax bytes.
absl::StatusOr<std::string> ReadStdin();

// Calls `on_element` for every element of a JSON array. `source` names it in errors: "ids.json".
absl::Status ForEachElement(
    const std::string& json, const std::string& source,
    const std::function<absl::Status(size_t index, simdjson::dom::element element)>& on_element);

// [[1, 2], [3]]. Ids are whole numbers from 0 to 2^32 - 1.
absl::StatusOr<std::vector<std::vector<uint32_t>>> ParseTokenArrays(const std::string& json,
                                                                    const std::string& source);
// The same from a file; a sequence without tokens is an error as well.
absl::StatusOr<std::vector<std::vector<uint32_t>>> ReadTokenFile(const std::string& path);

// ["a", "b"].
absl::StatusOr<std::vector<std::string>> ParseTexts(const std::string& json,
                                                    const std::string& source);

}  // namespace essor::cli
