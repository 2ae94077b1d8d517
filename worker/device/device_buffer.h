// Memory of a rank's device. The only place in the worker that allocates it: weights, KV blocks and
// workspaces are each one buffer, made while a rank is formed and never on the step path.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace essor::worker {

// Owning and movable; zero-filled; 4 KiB aligned, on huge pages where the kernel gives them.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  // ResourceExhausted naming `purpose` and the size when the memory is not to be had. The pages are
  // only touched (and thus truly taken) by their first write.
  static absl::StatusOr<DeviceBuffer> Allocate(uint64_t bytes, const std::string& purpose);

  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;
  ~DeviceBuffer();

  std::byte* data() const { return data_; }
  uint64_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  uint64_t size_ = 0;
};

// Hands out consecutive 64-byte aligned pieces of a buffer it owns. The total is computed before,
// by running the same sequence of calls on an Arena without a buffer (see `Measure`).
class Arena {
 public:
  // An arena without memory: Take() returns null and only counts.
  static Arena Measure() { return Arena(DeviceBuffer(), true); }
  static absl::StatusOr<Arena> Allocate(uint64_t bytes, const std::string& purpose);

  template <typename T>
  T* Take(uint64_t count) {
    return reinterpret_cast<T*>(TakeBytes(count * sizeof(T)));
  }
  uint64_t used_bytes() const { return used_; }

 private:
  Arena(DeviceBuffer buffer, bool measuring) : buffer_(std::move(buffer)), measuring_(measuring) {}
  std::byte* TakeBytes(uint64_t bytes);

  DeviceBuffer buffer_;
  bool measuring_;
  uint64_t used_ = 0;
};

}  // namespace essor::worker
