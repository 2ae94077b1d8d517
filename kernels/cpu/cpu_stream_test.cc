#include "kernels/cpu/cpu_stream.h"

#include <cstdint>
#include <cstring>

#include "gtest/gtest.h"

namespace essor::kernels {
namespace {

TEST(CpuStreamTest, WorkspaceIsAlignedGrowsAndIsKept) {
  auto stream = CpuStream::Create({.threads = {.num_threads = 1}, .workspace_bytes = 1000});
  std::byte* first = stream->Workspace(1000);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(first) % 64, 0u);
  EXPECT_EQ(stream->Workspace(1), first);  // what was reserved is used
  std::byte* grown = stream->Workspace(100000);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(grown) % 64, 0u);
  std::memset(grown, 0xab, 100000);  // ASan would tell
  EXPECT_EQ(stream->Workspace(100000), grown);
}

TEST(CpuStreamTest, UsesTheGivenThreadsAndIsa) {
  auto stream = CpuStream::Create({.threads = {.num_threads = 2}, .isa = CpuIsa::kReference});
  EXPECT_EQ(stream->device(), DeviceKind::kCpu);
  EXPECT_EQ(stream->isa(), CpuIsa::kReference);
  EXPECT_EQ(stream->pool().num_threads(), 2u);
  EXPECT_EQ(&AsCpuStream(*stream), stream.get());
}

// The compiler's own detection as the oracle. It does not check the operating system's part the
// same way, so it may only claim more, never less.
TEST(CpuIsaTest, AgreesWithTheCompilersDetection) {
  EXPECT_TRUE(CpuIsaAvailable(CpuIsa::kReference));
  EXPECT_TRUE(CpuIsaAvailable(CpuIsa::kPortable));
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vbmi") &&
                      __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
  EXPECT_EQ(CpuIsaAvailable(CpuIsa::kAvx2), avx2);
  EXPECT_EQ(CpuIsaAvailable(CpuIsa::kAvx512), avx512);
#endif
}

TEST(CpuIsaTest, HasNames) {
  EXPECT_STREQ(CpuIsaName(CpuIsa::kReference), "reference");
  EXPECT_STREQ(CpuIsaName(CpuIsa::kPortable), "portable");
  EXPECT_STREQ(CpuIsaName(CpuIsa::kAvx2), "avx2");
  EXPECT_STREQ(CpuIsaName(CpuIsa::kAvx512), "avx512");
}

}  // namespace
}  // namespace essor::kernels
