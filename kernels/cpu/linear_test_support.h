// Matrices, streams and tolerances for the tests of matrix products.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "kernels/cpu/cpu_stream.h"
#include "kernels/linear.h"
#include "kernels/packed_matrix.h"

namespace essor::kernels::testing {

std::string FormatName(WeightFormat format);
inline constexpr WeightFormat kAllFormats[] = {
    WeightFormat::kF32, WeightFormat::kBF16, WeightFormat::kQ8,  WeightFormat::kQ4,
    WeightFormat::kFp8, WeightFormat::kFp4,  WeightFormat::kInt4};

// Whether columns come in blocks of 32 only.
inline bool InBlocks(WeightFormat format) {
  return format == WeightFormat::kQ8 || format == WeightFormat::kQ4 || IsNibbles(format);
}

// Seeded, the same on every machine.
std::vector<float> RandomFloats(size_t count, uint32_t seed, float scale = 1.0f);

// A packed matrix that owns its bytes. Neighbouring bytes and, before packing, its own are poison,
// so that what packing leaves out shows.
class TestMatrix {
 public:
  // Values of about N(0, 1 / k), rounded to the format.
  static TestMatrix Random(WeightFormat format, uint32_t n, uint32_t k, uint32_t seed,
                           uint32_t block_offset = 0);
  TestMatrix(WeightFormat format, uint32_t n, uint32_t k, uint32_t block_offset = 0);

  std::byte* data() { return data_; }
  PackedMatrix view() const {
    return {.format = format_, .n = n_, .k = k_, .block_offset = block_offset_, .data = data_};
  }
  PackTarget target() {
    return {.destination = data_,
            .n = n_,
            .k = k_,
            .first_row = 0,
            .num_rows = n_,
            .block_offset = block_offset_};
  }
  // Whether the bytes around the matrix are still poison.
  bool GuardsIntact() const;

 private:
  WeightFormat format_;
  uint32_t n_;
  uint32_t k_;
  uint32_t block_offset_;
  size_t bytes_;
  std::vector<std::byte> storage_;
  std::byte* data_;
};

std::unique_ptr<CpuStream> MakeStream(CpuIsa isa, uint32_t num_threads = 1);

// Remembers the largest workspace asked for.
class MeasuringStream final : public CpuStream {
 public:
  explicit MeasuringStream(CpuStream& inner) : inner_(inner) {}
  std::byte* Workspace(size_t bytes) override {
    largest_ = std::max(largest_, bytes);
    return inner_.Workspace(bytes);
  }
  ThreadPool& pool() override { return inner_.pool(); }
  CpuIsa isa() const override { return inner_.isa(); }
  size_t largest() const { return largest_; }

 private:
  CpuStream& inner_;
  size_t largest_ = 0;
};

// How far a float32 sum of `k` products of rounded activations and weights may lie from the exact
// one, for each (row, output): with u = 2^-24, any order of summation errs by at most
// (k + 4) * u * sum |x w| (Higham, Accuracy and Stability, 4.2; 4 for the factors' own roundings:
// scale products and conversions). Denormal bf16 counts as zero on some processors: k * 2^-126.
// Returns sum |x w| * (k + 4) u + k 2^-126 for x already rounded as the format rounds it.
double ProductTolerance(std::span<const float> x, std::span<const float> w);

}  // namespace essor::kernels::testing
