// Reads the little-endian fields of a GGUF file in order, never past its end.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace essor::model {

// Thread-compatible. Every read answers InvalidArgument naming path, offset and `what` when the
// file, or the part of it that may be read, ends first.
class GgufCursor {
 public:
  // Reads the first `bytes_max` bytes at most.
  GgufCursor(std::span<const std::byte> bytes, uint64_t bytes_max, std::string path)
      : bytes_(bytes), end_(std::min<uint64_t>(bytes.size(), bytes_max)), path_(std::move(path)) {}

  template <typename T>
  requires std::is_arithmetic_v<T> absl::Status Read(const std::string& what, T& value) {
    if (sizeof(T) > remaining()) return EndsIn(what, sizeof(T));
    std::memcpy(&value, bytes_.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return absl::OkStatus();
  }

  // A 64-bit length and that many bytes, at most `length_max`.
  absl::Status ReadString(const std::string& what, uint64_t length_max, std::string& value) {
    uint64_t length = 0;
    if (absl::Status status = Read(what, length); !status.ok()) return status;
    if (length > remaining()) return EndsIn(what, length);
    if (length > length_max) {
      return Bad(absl::StrCat(what, ": ", length, " bytes are over the limit of ", length_max));
    }
    value.assign(reinterpret_cast<const char*>(bytes_.data()) + position_, length);
    position_ += length;
    return absl::OkStatus();
  }

  absl::Status Bad(const std::string& what) const {
    return absl::InvalidArgumentError(absl::StrCat(path_, ": ", what));
  }

  uint64_t position() const { return position_; }
  uint64_t remaining() const { return end_ - position_; }
  std::span<const std::byte> bytes() const { return bytes_; }  // the whole file
  // "12 bytes left", and why there are no more of them.
  std::string BytesLeft() const {
    return absl::StrCat(
        remaining(), " bytes left",
        end_ == bytes_.size()
            ? ""
            : absl::StrCat(" of the ", end_,
                           " that everything before the tensors' data may take (of ", bytes_.size(),
                           ")"));
  }
  const std::string& path() const { return path_; }

 private:
  absl::Status EndsIn(const std::string& what, uint64_t wanted) const {
    return Bad(absl::StrCat("ends inside ", what, ": ", wanted, " bytes wanted at offset ",
                            position_, ", ", BytesLeft()));
  }

  std::span<const std::byte> bytes_;
  uint64_t end_;  // of what may be read
  std::string path_;
  uint64_t position_ = 0;
};

}  // namespace essor::model
