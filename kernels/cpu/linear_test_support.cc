#include "kernels/cpu/linear_test_support.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "common/float16.h"

namespace essor::kernels::testing {
namespace {

constexpr size_t kGuardBytes = 256;
constexpr std::byte kPoison{0xdb};

template <typename T, typename Draw>
std::vector<T> Fill(size_t count, const Draw& draw) {
  std::vector<T> values(count);
  std::generate(values.begin(), values.end(), [&] { return static_cast<T>(draw()); });
  return values;
}

// In [0, bound): the standard's distributions differ between libraries, the engine does not.
uint32_t Below(std::mt19937& engine, uint32_t bound) { return engine() % bound; }

std::vector<uint16_t> RandomHalves(size_t count, std::mt19937& engine, float lowest, float range) {
  return Fill<uint16_t>(count, [&] {
    return ToFloat16(lowest + range * static_cast<float>(Below(engine, 1u << 20)) / (1u << 20))
        .bits;
  });
}

void PackRandomQuantised(TestMatrix& matrix, std::mt19937& engine) {
  const PackTarget target = matrix.target();
  const size_t count = size_t{target.n} * target.k;
  const float step = 1 / std::sqrt(static_cast<float>(target.k));
  if (matrix.view().format == WeightFormat::kQ8) {
    const auto values =
        Fill<int8_t>(count, [&] { return static_cast<int>(Below(engine, 256)) - 128; });
    const auto scales = RandomHalves(count / 32, engine, step / 128, step / 64);
    PackQ8({.values = values, .scales = scales, .minima = {}}, target.k, target);
    return;
  }
  const auto values = Fill<int8_t>(count, [&] { return Below(engine, 16); });
  const auto scales = RandomHalves(count / 32, engine, step / 8, step / 8);
  const auto minima = RandomHalves(count / 32, engine, -2 * step, step);
  PackQ4({.values = values, .scales = scales, .minima = minima}, target.k, target);
}

// Any code but NaN, with scales that bring the values to N(0, 1 / k): the mean square of the codes
// 0 .. 126 is 136^2.
void PackRandomFp8(TestMatrix& matrix, std::mt19937& engine) {
  const PackTarget target = matrix.target();
  const auto codes = Fill<uint8_t>(size_t{target.n} * target.k,
                                   [&] { return Below(engine, 127) | (Below(engine, 2) << 7); });
  const size_t blocks = (target.block_offset + target.k + 127) / 128;
  const float mean = 1 / (136 * std::sqrt(static_cast<float>(target.k)));
  const auto scales = Fill<float>(target.n * blocks, [&] {
    return mean * (0.5f + static_cast<float>(Below(engine, 1u << 20)) / (1u << 20));
  });
  PackFp8({.codes = codes, .scales = scales, .scale_stride = blocks}, target.k, target);
}

void PackRandomNibbles(TestMatrix& matrix, std::mt19937& engine) {
  const PackTarget target = matrix.target();
  const size_t count = size_t{target.n} * target.k;
  const float step = 1 / std::sqrt(static_cast<float>(target.k));
  const auto codes = Fill<uint8_t>(count / 2, [&] { return Below(engine, 256); });
  const auto scales = Fill<uint16_t>(count / 32, [&] {
    return ToBFloat16(step * (1 + static_cast<float>(Below(engine, 64)) / 64) / 6).bits;
  });
  PackNibbles(matrix.view().format, {.codes = codes, .scales = scales}, target.k, target);
}

}  // namespace

std::string FormatName(WeightFormat format) {
  switch (format) {
    case WeightFormat::kF32:
      return "f32";
    case WeightFormat::kBF16:
      return "bf16";
    case WeightFormat::kQ8:
      return "q8";
    case WeightFormat::kQ4:
      return "q4";
    case WeightFormat::kFp8:
      return "fp8";
    case WeightFormat::kFp4:
      return "fp4";
    case WeightFormat::kInt4:
      return "int4";
  }
  return "unknown";
}

std::vector<float> RandomFloats(size_t count, uint32_t seed, float scale) {
  std::mt19937 engine(seed);
  // Four uniform numbers: near enough to a normal distribution, without its library dependence.
  return Fill<float>(count, [&] {
    double sum = -2;
    for (int i = 0; i < 4; ++i) sum += static_cast<double>(engine()) * 0x1p-32;
    return sum * std::sqrt(3.0) * static_cast<double>(scale);
  });
}

TestMatrix::TestMatrix(WeightFormat format, uint32_t n, uint32_t k, uint32_t block_offset)
    : format_(format),
      n_(n),
      k_(k),
      block_offset_(block_offset),
      bytes_(PackedMatrixBytes(format, n, k, block_offset)),
      storage_(bytes_ + 2 * kGuardBytes + 64, kPoison) {
  const auto address = reinterpret_cast<uintptr_t>(storage_.data() + kGuardBytes);
  data_ = storage_.data() + kGuardBytes + (64 - address % 64) % 64;
}

TestMatrix TestMatrix::Random(WeightFormat format, uint32_t n, uint32_t k, uint32_t seed,
                              uint32_t block_offset) {
  TestMatrix matrix(format, n, k, block_offset);
  std::mt19937 engine(seed);
  if (format == WeightFormat::kFp8) {
    PackRandomFp8(matrix, engine);
    return matrix;
  }
  if (IsNibbles(format)) {
    PackRandomNibbles(matrix, engine);
    return matrix;
  }
  if (format == WeightFormat::kQ8 || format == WeightFormat::kQ4) {
    PackRandomQuantised(matrix, engine);
    return matrix;
  }
  const std::vector<float> values =
      RandomFloats(size_t{n} * k, seed, 1 / std::sqrt(static_cast<float>(k)));
  if (format == WeightFormat::kF32) {
    PackF32(values, k, matrix.target());
    return matrix;
  }
  std::vector<uint16_t> rounded(values.size());
  std::transform(values.begin(), values.end(), rounded.begin(),
                 [](float value) { return ToBFloat16(value).bits; });
  PackBF16(rounded, k, matrix.target());
  return matrix;
}

bool TestMatrix::GuardsIntact() const {
  const auto poison = [](std::byte byte) { return byte == kPoison; };
  const std::byte* begin = storage_.data();
  return std::all_of(begin, static_cast<const std::byte*>(data_), poison) &&
         std::all_of(static_cast<const std::byte*>(data_) + bytes_, begin + storage_.size(),
                     poison);
}

std::unique_ptr<CpuStream> MakeStream(CpuIsa isa, uint32_t num_threads) {
  return CpuStream::Create({.threads = {.num_threads = num_threads, .cpus = {}}, .isa = isa});
}

double ProductTolerance(std::span<const float> x, std::span<const float> w) {
  double magnitude = 0;
  for (size_t i = 0; i < w.size(); ++i) {
    magnitude += std::abs(static_cast<double>(x[i]) * static_cast<double>(w[i]));
  }
  const auto k = static_cast<double>(w.size());
  return magnitude * (k + 4) * 0x1p-24 + k * 0x1p-126;
}

}  // namespace essor::kernels::testing
