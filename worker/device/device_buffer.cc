#include "worker/device/device_buffer.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/check.h"
#include "common/status_macros.h"

namespace essor::worker {
namespace {

constexpr uint64_t kArenaAlignment = 64;

}  // namespace

absl::StatusOr<DeviceBuffer> DeviceBuffer::Allocate(uint64_t bytes, const std::string& purpose) {
  DeviceBuffer buffer;
  if (bytes == 0) return buffer;
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrFormat("cannot allocate %d bytes for %s: %s",
                                                        bytes, purpose, std::strerror(errno)));
  }
  madvise(data, bytes, MADV_HUGEPAGE);  // a hint: serving works without, with more TLB misses
  buffer.data_ = static_cast<std::byte*>(data);
  buffer.size_ = bytes;
  return buffer;
}

DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

DeviceBuffer::~DeviceBuffer() {
  if (data_ != nullptr) munmap(data_, size_);
}

absl::StatusOr<Arena> Arena::Allocate(uint64_t bytes, const std::string& purpose) {
  ESSOR_ASSIGN_OR_RETURN(DeviceBuffer buffer, DeviceBuffer::Allocate(bytes, purpose));
  return Arena(std::move(buffer), false);
}

std::byte* Arena::TakeBytes(uint64_t bytes) {
  const uint64_t begin = used_;
  used_ += (bytes + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
  if (measuring_) return nullptr;
  ESSOR_CHECK(used_ <= buffer_.size());
  return buffer_.data() + begin;
}

}  // namespace essor::worker
