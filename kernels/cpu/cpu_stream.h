// A stream whose operations run on the threads of one CPU rank, at once, in the caller's time.
#pragma once

#include <memory>

#include "kernels/cpu/thread_pool.h"
#include "kernels/stream.h"

namespace essor::kernels {

// Which implementation the CPU operations use; the best one the processor has unless told
// otherwise.
enum class CpuIsa { kReference, kPortable, kAvx2, kAvx512 };
CpuIsa BestCpuIsa();

class CpuStream : public Stream {
 public:
  struct Options {
    ThreadPool::Options threads;
    CpuIsa isa = BestCpuIsa();
    size_t workspace_bytes = 0;  // reserved and touched now
  };
  static std::unique_ptr<CpuStream> Create(const Options& options);

  DeviceKind device() const override { return DeviceKind::kCpu; }
  virtual ThreadPool& pool() = 0;
  virtual CpuIsa isa() const = 0;
};

}  // namespace essor::kernels
