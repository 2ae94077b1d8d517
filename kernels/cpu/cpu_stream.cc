#include "kernels/cpu/cpu_stream.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <cstdlib>
#include <cstring>

#include "common/check.h"

namespace essor::kernels {
namespace {

#if defined(__x86_64__)

struct CpuidRegisters {
  uint32_t eax = 0;
  uint32_t ebx = 0;
  uint32_t ecx = 0;
  uint32_t edx = 0;
};

// Zeros when the processor does not have that leaf.
CpuidRegisters Cpuid(uint32_t leaf, uint32_t subleaf) {
  CpuidRegisters r;
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}

// Extended control register 0: which register states the operating system saves and restores. To
// be called only where CPUID says OSXSAVE.
uint64_t ReadXcr0() {
  uint32_t eax = 0;
  uint32_t edx = 0;
  asm volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
  return (static_cast<uint64_t>(edx) << 32) | eax;
}

bool HasBits(uint64_t value, uint64_t bits) { return (value & bits) == bits; }

// Bit positions: Intel SDM volume 2, CPUID leaves 1 and 7, and volume 1, section 13.3 (XCR0).
CpuIsa DetectCpuIsa() {
  const CpuidRegisters leaf1 = Cpuid(1, 0);
  constexpr uint32_t kFma = 1u << 12;
  constexpr uint32_t kOsXsave = 1u << 27;
  constexpr uint32_t kAvx = 1u << 28;
  constexpr uint32_t kF16c = 1u << 29;
  if (!HasBits(leaf1.ecx, kFma | kOsXsave | kAvx | kF16c)) return CpuIsa::kPortable;

  const uint64_t xcr0 = ReadXcr0();
  constexpr uint64_t kSseAvxState = 0x06;  // XMM and upper halves of YMM
  constexpr uint32_t kAvx2 = 1u << 5;
  const CpuidRegisters leaf7 = Cpuid(7, 0);
  if (!HasBits(xcr0, kSseAvxState) || !HasBits(leaf7.ebx, kAvx2)) return CpuIsa::kPortable;

  constexpr uint64_t kAvx512State = 0xe0;  // opmasks, upper halves of ZMM0-15, ZMM16-31
  constexpr uint32_t kFDqBwVl = (1u << 16) | (1u << 17) | (1u << 30) | (1u << 31);  // in EBX
  constexpr uint32_t kVbmiVnni = (1u << 1) | (1u << 11);                            // in ECX
  constexpr uint32_t kBf16 = 1u << 5;  // in EAX of sub-leaf 1
  const CpuidRegisters leaf7_1 = Cpuid(7, 1);
  if (!HasBits(xcr0, kAvx512State) || !HasBits(leaf7.ebx, kFDqBwVl) ||
      !HasBits(leaf7.ecx, kVbmiVnni) || !HasBits(leaf7_1.eax, kBf16)) {
    return CpuIsa::kAvx2;
  }
  return CpuIsa::kAvx512;
}

#else

CpuIsa DetectCpuIsa() { return CpuIsa::kPortable; }

#endif

class OwnedCpuStream final : public CpuStream {
 public:
  explicit OwnedCpuStream(const Options& options)
      : isa_(options.isa), pool_(ThreadPool::Create(options.threads)) {
    ESSOR_CHECK(CpuIsaAvailable(options.isa));
    if (options.workspace_bytes == 0) return;
    // Touched here, by the owner, so that no page fault falls into a step.
    std::memset(Workspace(options.workspace_bytes), 0, workspace_bytes_);
  }

  ~OwnedCpuStream() override { std::free(workspace_); }

  std::byte* Workspace(size_t bytes) override {
    if (bytes <= workspace_bytes_) return workspace_;
    const size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    std::free(workspace_);
    workspace_ = static_cast<std::byte*>(std::aligned_alloc(kAlignment, rounded));
    // The memory plan holds the workspace, so running out here is a planning bug.
    ESSOR_CHECK(workspace_ != nullptr);
    workspace_bytes_ = rounded;
    return workspace_;
  }

  ThreadPool& pool() override { return *pool_; }
  CpuIsa isa() const override { return isa_; }

 private:
  static constexpr size_t kAlignment = 64;

  const CpuIsa isa_;
  const std::unique_ptr<ThreadPool> pool_;
  std::byte* workspace_ = nullptr;
  size_t workspace_bytes_ = 0;
};

}  // namespace

CpuIsa BestCpuIsa() {
  static const CpuIsa best = DetectCpuIsa();
  return best;
}

const char* CpuIsaName(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kReference:
      return "reference";
    case CpuIsa::kPortable:
      return "portable";
    case CpuIsa::kAvx2:
      return "avx2";
    case CpuIsa::kAvx512:
      return "avx512";
  }
  return "unknown";
}

std::unique_ptr<CpuStream> CpuStream::Create(const Options& options) {
  return std::make_unique<OwnedCpuStream>(options);
}

CpuStream& AsCpuStream(Stream& stream) {
  ESSOR_CHECK(stream.device() == DeviceKind::kCpu);
  return static_cast<CpuStream&>(stream);
}

}  // namespace essor::kernels
