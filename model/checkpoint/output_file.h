// A file that appears under its name only when it is complete.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace essor::model {

// Writes "<path>.partial", which Publish() renames to `path`; destruction without Publish() removes
// it. Order of calls: Append*, Close, Publish. Thread-compatible.
// Errors are those of the system calls, naming the path: ResourceExhausted for a full disk,
// PermissionDenied, NotFound for a missing directory.
class OutputFile {
 public:
  // Replaces a stale "<path>.partial".
  static absl::StatusOr<std::unique_ptr<OutputFile>> Create(const std::string& path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  absl::Status Append(std::span<const std::byte> bytes);
  absl::Status Append(std::string_view text);
  // Writes what is buffered and waits until it is on disk: a rename must not overtake the data, and
  // some file systems report a full disk only now.
  absl::Status Close();
  absl::Status Publish();

  uint64_t size() const { return size_; }
  const std::string& path() const { return path_; }

 private:
  OutputFile(std::string path, int descriptor);
  absl::Status Flush();
  absl::Status WriteAll(std::span<const std::byte> bytes);

  const std::string path_;
  const std::string partial_;
  int descriptor_;  // -1 once closed
  bool published_ = false;
  uint64_t size_ = 0;
  std::vector<std::byte> buffer_;
};

// Creates `path` with `text`, all at once.
absl::Status WriteTextFile(const std::string& path, std::string_view text);

}  // namespace essor::model
