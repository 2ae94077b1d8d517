// Typed access to a GGUF file's metadata.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/checkpoint/gguf.h"

namespace essor::model {

// Each answers NotFound naming path and key for a missing key, InvalidArgument for a value of
// another type (an integer counts as a real number) or, for GgufUint, a negative one.
absl::StatusOr<uint64_t> GgufUint(const GgufFile& file, const std::string& key);
absl::StatusOr<double> GgufReal(const GgufFile& file, const std::string& key);
absl::StatusOr<bool> GgufBool(const GgufFile& file, const std::string& key);
absl::StatusOr<std::string> GgufString(const GgufFile& file, const std::string& key);
// Points into the file's metadata.
absl::StatusOr<const std::vector<std::string>*> GgufStrings(const GgufFile& file,
                                                            const std::string& key);

// `missing` where the getter answered NotFound; other errors pass.
template <typename T>
absl::StatusOr<T> GgufOr(absl::StatusOr<T> value, T missing) {
  if (absl::IsNotFound(value.status())) return missing;
  return value;
}

}  // namespace essor::model
