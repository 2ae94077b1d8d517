// What the tests of elementwise operations, attention, routing and sampling share.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "common/kv_type.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_stream.h"

namespace essor::kernels {

// Every implementation; the first is the measure of the others.
inline constexpr CpuIsa kAllIsas[] = {CpuIsa::kReference, CpuIsa::kPortable, CpuIsa::kAvx2,
                                      CpuIsa::kAvx512};

// Half a unit in the last place of a float, relative: the error of one rounding.
inline constexpr double kRounding = 0x1p-24;

inline constexpr KvType kKvTypes[] = {KvType::kFloat32, KvType::kBFloat16, KvType::kFp8,
                                      KvType::kInt8};

// Bytes of it are NaNs where the type has any, and its scales.
inline std::byte NanByte(KvType type) {
  return type == KvType::kFp8 ? std::byte{0x7f} : std::byte{0xff};
}

// What a kernel must neither read into its result nor leave in its output.
inline constexpr float kPoison = 1.5e30f;

// A test that runs once for each ISA and is skipped where the processor lacks it.
class EachIsaTest : public ::testing::TestWithParam<CpuIsa> {
 protected:
  void SetUp() override {
    if (!CpuIsaAvailable(GetParam())) {
      GTEST_SKIP() << "this processor has no " << CpuIsaName(GetParam());
    }
  }
  static std::unique_ptr<CpuStream> MakeStream(uint32_t num_threads = 1) {
    return CpuStream::Create({.threads = {.num_threads = num_threads}, .isa = GetParam()});
  }
};

// Passes everything on and remembers the largest workspace asked for.
class MeasuringStream : public CpuStream {
 public:
  explicit MeasuringStream(CpuStream& stream) : stream_(stream) {}
  std::byte* Workspace(size_t bytes) override {
    largest_ = std::max(largest_, bytes);
    return stream_.Workspace(bytes);
  }
  ThreadPool& pool() override { return stream_.pool(); }
  CpuIsa isa() const override { return stream_.isa(); }
  size_t largest() const { return largest_; }

 private:
  CpuStream& stream_;
  size_t largest_ = 0;
};

inline std::string IsaTestName(const ::testing::TestParamInfo<CpuIsa>& info) {
  return CpuIsaName(info.param);
}

inline std::vector<float> RandomFloats(size_t count, uint32_t seed, float scale = 1.0f) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}

}  // namespace essor::kernels
