// Where and in which order operations run. Every operation takes its stream explicitly; operations
// on one stream happen in call order. A stream and everything passed to operations on it belong to
// one owner thread.
#pragma once

#include <cstddef>

namespace essor::kernels {

enum class DeviceKind { kCpu, kCuda };

class Stream {
 public:
  virtual ~Stream() = default;
  virtual DeviceKind device() const = 0;
  // Scratch memory of at least `bytes`, 64-byte aligned, valid until the next operation on the
  // stream asks for its own. Grows during warm-up only; a rank reserves its planned maximum once.
  virtual std::byte* Workspace(size_t bytes) = 0;
};

}  // namespace essor::kernels
