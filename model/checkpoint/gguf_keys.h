// The metadata keys of one architecture, "<architecture>.<key>".
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/checkpoint/gguf.h"

namespace essor::model {

// Reads keys and remembers which were asked for, so that the others can be refused. Every getter
// answers InvalidArgument naming file and key for a value of the wrong type, and for a missing key
// unless it is told what that means. `file` must outlive it. Not thread-safe.
class GgufKeys {
 public:
  GgufKeys(const GgufFile& file, std::string architecture)
      : file_(file), architecture_(std::move(architecture)) {}

  const GgufFile& file() const { return file_; }
  const std::string& architecture() const { return architecture_; }

  bool Has(const std::string& key) const;
  absl::StatusOr<uint64_t> Uint(const std::string& key,
                                std::optional<uint64_t> missing = std::nullopt);
  // Above 0 and finite. The decimal number meant by a value that was stored as float32: 1e-05, not
  // 9.99999975e-06.
  absl::StatusOr<double> Positive(const std::string& key,
                                  std::optional<double> missing = std::nullopt);
  absl::StatusOr<bool> Bool(const std::string& key, bool missing);
  absl::StatusOr<std::string> String(const std::string& key, const std::string& missing);

  // InvalidArgument: "<path>: metadata key <architecture>.<key><problem>".
  absl::Status Bad(const std::string& key, const std::string& problem) const;
  // InvalidArgument naming the first key of the architecture, in alphabetical order, that nobody
  // asked for.
  absl::Status RefuseOthers() const;

 private:
  // The whole key, noted as asked for.
  std::string Note(const std::string& key);

  const GgufFile& file_;
  const std::string architecture_;
  absl::flat_hash_set<std::string> asked_;
};

// The shortest decimal number that float32 stores as `stored`.
double ShortestFloat(double stored);

}  // namespace essor::model
