// The table of tensors behind both file formats: lookup by name, sorted names, fingerprint.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "model/checkpoint/checkpoint.h"

namespace essor::model {

// One tensor of a parsed header. A type that the format knows and Essor does not read keeps
// `supported` false: the file opens, and only looking that tensor up is an error.
struct TensorEntry {
  TensorView view;  // dtype is meaningless when not supported
  bool supported = true;
  std::string stored_type;  // the format's own word: "F8_E4M3", "Q5_K"
};

// The product of `shape`, or nullopt when it does not fit 64 bits. Empty shape: 1.
std::optional<uint64_t> ElementCount(std::span<const uint64_t> shape);

// Immutable after construction; thread-safe.
class TensorTable {
 public:
  // Names must be unique. `files` are sizes in bytes, in the order in which they were opened.
  TensorTable(std::string format, std::vector<TensorEntry> entries, std::vector<uint64_t> files);

  // NotFound; InvalidArgument for a tensor whose type is not supported.
  absl::StatusOr<TensorView> Find(const std::string& name) const;
  bool Contains(const std::string& name) const { return by_name_.contains(name); }
  std::vector<std::string> Names() const;
  // 128 bits in hex, see Checkpoint::Fingerprint.
  std::string Fingerprint() const;

 private:
  std::string format_;
  std::vector<TensorEntry> entries_;  // sorted by name
  std::vector<uint64_t> files_;
  absl::flat_hash_map<std::string, size_t> by_name_;
};

}  // namespace essor::model
