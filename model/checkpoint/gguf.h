// GGUF files (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), versions 2 and 3,
// little-endian.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "model/checkpoint/checkpoint.h"

namespace essor::model {

// A metadata value. Integers of every width become int64_t or uint64_t, floats double.
using GgufValue = std::variant<bool, int64_t, uint64_t, double, std::string, std::vector<bool>,
                               std::vector<int64_t>, std::vector<uint64_t>, std::vector<double>,
                               std::vector<std::string>>;

// Immutable after opening; thread-safe. Tensor names and shapes are the file's own, but shapes are
// given outermost first (GGUF stores them innermost first).
class GgufFile : public Checkpoint {
 public:
  // InvalidArgument naming file, key or tensor for every lie: bad magic, unknown version, counts or
  // lengths beyond the file, or beyond the 512 MB that may lie before the tensors' data, unknown
  // types, dimensions 0 or above 4, overlapping or misaligned tensors, alignment 0, duplicate keys
  // or names. Of a model split into several files (keys split.no, split.count and
  // split.tensors.count, names that end with "-00001-of-00003.gguf"), `path` is the first, whose
  // metadata holds; the others stand beside it, and none may be missing.
  static absl::StatusOr<std::unique_ptr<GgufFile>> Open(const std::string& path);

  virtual const absl::flat_hash_map<std::string, GgufValue>& metadata() const = 0;
  // As given to Open(), for error messages.
  virtual const std::string& path() const = 0;
};

}  // namespace essor::model
