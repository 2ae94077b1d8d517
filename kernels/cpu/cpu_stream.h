// A stream whose operations run on the threads of one CPU rank, at once, in the caller's time.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/cpu/thread_pool.h"
#include "kernels/stream.h"

namespace essor::kernels {

// Which implementation the CPU operations use; the best one the processor has unless told
// otherwise. In the order of preference, least first; each includes what the ones before it need.
//   kReference  the plain loops of kernels/reference, on the calling thread only
//   kPortable   compiled without any flags beyond the build's
//   kAvx2       AVX2, FMA and F16C
//   kAvx512     AVX-512 F, BW, VL, DQ, VBMI, BF16 and VNNI
enum class CpuIsa { kReference, kPortable, kAvx2, kAvx512 };

// The best one that both the processor has and the operating system saves registers for.
CpuIsa BestCpuIsa();
// Whether operations told to use `isa` can run here.
inline bool CpuIsaAvailable(CpuIsa isa) { return isa <= BestCpuIsa(); }
const char* CpuIsaName(CpuIsa isa);  // "reference", "portable", "avx2", "avx512"

class CpuStream : public Stream {
 public:
  struct Options {
    ThreadPool::Options threads = {};
    CpuIsa isa = BestCpuIsa();   // must be available
    size_t workspace_bytes = 0;  // reserved and touched now
  };
  // The calling thread becomes the owner.
  static std::unique_ptr<CpuStream> Create(const Options& options);

  DeviceKind device() const override { return DeviceKind::kCpu; }
  virtual ThreadPool& pool() = 0;
  virtual CpuIsa isa() const = 0;
};

// The stream as the CPU implementations need it; a stream of another device is a bug of the caller.
CpuStream& AsCpuStream(Stream& stream);

}  // namespace essor::kernels
