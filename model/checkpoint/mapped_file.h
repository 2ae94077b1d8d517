// A whole file mapped read-only into memory.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace essor::model {

// Immutable; thread-safe. The bytes stay valid until destruction. A file that shrinks while it is
// mapped is outside the contract (reading past its new end raises SIGBUS).
class MappedFile {
 public:
  // NotFound or PermissionDenied naming the path; InvalidArgument for what is not a regular file.
  // An empty file gives an empty span.
  static absl::StatusOr<std::unique_ptr<MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }
  const std::string& path() const { return path_; }

 private:
  MappedFile(std::string path, std::span<const std::byte> bytes)
      : path_(std::move(path)), bytes_(bytes) {}

  std::string path_;
  std::span<const std::byte> bytes_;
};

// How a range of mapped bytes will be used; only a hint to the kernel.
enum class MemoryAdvice {
  kWillNeed,  // soon: begin reading now
  kDontNeed,  // not again soon: pages may be dropped (the file keeps the data)
};

// `bytes` must lie inside a MappedFile; kDontNeed leaves partly covered pages alone.
void Advise(std::span<const std::byte> bytes, MemoryAdvice advice);

}  // namespace essor::model
