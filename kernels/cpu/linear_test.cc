#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <tuple>

#include "gtest/gtest.h"
#include "kernels/cpu/linear_test_support.h"
#include "kernels/reference/linear_reference.h"

namespace essor::kernels {
namespace {

using testing::MakeStream;
using testing::ProductTolerance;
using testing::RandomFloats;
using testing::TestMatrix;

constexpr float kPoison = -12345.0f;

class LinearTest : public ::testing::TestWithParam<std::tuple<CpuIsa, WeightFormat>> {
 protected:
  void SetUp() override {
    if (!CpuIsaAvailable(isa())) {
      GTEST_SKIP() << "this processor has no " << CpuIsaName(isa());
    }
  }
  CpuIsa isa() const { return std::get<0>(GetParam()); }
  WeightFormat format() const { return std::get<1>(GetParam()); }
  // Whether x is quantised, too.
  bool quantised() const { return format() == WeightFormat::kQ8 || format() == WeightFormat::kQ4; }

  // y = x * w of `rows` rows on a stream of its own.
  std::vector<float> Multiply(std::span<const float> x, uint32_t rows, const TestMatrix& w,
                              uint32_t num_threads = 1, bool split_x = false) const {
    const uint32_t n = w.view().n;
    std::vector<float> y(size_t{rows} * n, kPoison);
    const LinearOutput output{.weight = w.view(), .y = y.data(), .y_stride = n};
    const auto stream = MakeStream(isa(), num_threads);
    Linear({.x = x.data(),
            .x_stride = w.view().k,
            .num_rows = rows,
            .outputs = {&output, 1},
            .split_x = split_x},
           *stream);
    return y;
  }

  // Compares with sums in double, to the tolerance of ProductTolerance.
  void ExpectProducts(std::span<const float> x, uint32_t rows, const TestMatrix& w,
                      std::span<const float> y, bool split_x = false) const {
    const PackedMatrix view = w.view();
    std::vector<float> rounded(x.size());
    std::vector<float> weights(view.k);
    if (split_x && !quantised() && format() != WeightFormat::kF32) {
      reference::SplitToBFloat16(x, rounded);
    } else {
      reference::RoundActivations(format(), x, rounded);
    }
    for (uint32_t n = 0; n < view.n; ++n) {
      UnpackRow(view, n, weights);
      for (uint32_t t = 0; t < rows; ++t) {
        const auto row = std::span(rounded).subspan(size_t{t} * view.k, view.k);
        double sum = 0;
        for (uint32_t c = 0; c < view.k; ++c) {
          sum += static_cast<double>(row[c]) * static_cast<double>(weights[c]);
        }
        ASSERT_NEAR(y[size_t{t} * view.n + n], sum, ProductTolerance(row, weights))
            << "n=" << view.n << " k=" << view.k << " row " << t << " output " << n;
      }
    }
  }
};

struct Shape {
  uint32_t rows;
  uint32_t n;
  uint32_t k;
};

TEST_P(LinearTest, MatchesExactSums) {
  std::vector<Shape> shapes = {{1, 1, 32},   {1, 64, 576}, {2, 33, 64},  {3, 31, 96},
                               {5, 130, 32}, {7, 96, 160}, {13, 65, 32}, {29, 40, 256}};
  if (!testing::InBlocks(format())) {
    shapes.insert(shapes.end(), {{1, 3, 1}, {4, 33, 7}, {9, 64, 33}, {2, 65, 63}});
  }
  for (const Shape shape : shapes) {
    const TestMatrix w = TestMatrix::Random(format(), shape.n, shape.k, 1);
    const std::vector<float> x = RandomFloats(size_t{shape.rows} * shape.k, 2);
    ExpectProducts(x, shape.rows, w, Multiply(x, shape.rows, w));
  }
}

// The promise of linear.h: the same bits alone and in any batch, on any number of threads.
TEST_P(LinearTest, RowsDependOnlyOnThemselves) {
  constexpr uint32_t kRows = 512;
  constexpr uint32_t kN = 100;
  constexpr uint32_t kK = 192;
  const TestMatrix w = TestMatrix::Random(format(), kN, kK, 5);
  const std::vector<float> x = RandomFloats(size_t{kRows} * kK, 6);
  std::vector<float> alone;
  for (uint32_t t = 0; t < kRows; ++t) {
    const std::vector<float> y = Multiply(std::span(x).subspan(size_t{t} * kK, kK), 1, w);
    alone.insert(alone.end(), y.begin(), y.end());
  }
  for (const uint32_t threads : {1u, 2u, 3u}) {
    for (const uint32_t rows : {2u, 3u, 7u, 8u, 17u, 64u, 512u}) {
      const std::vector<float> y = Multiply(x, rows, w, threads);
      ASSERT_EQ(std::memcmp(y.data(), alone.data(), y.size() * sizeof(float)), 0)
          << rows << " rows, " << threads << " threads";
    }
  }
}

TEST_P(LinearTest, NoRowsDoNothing) {
  const TestMatrix w = TestMatrix::Random(format(), 40, 64, 7);
  std::vector<float> y(40, kPoison);
  const LinearOutput output{.weight = w.view(), .y = y.data(), .y_stride = 40};
  const auto stream = MakeStream(isa(), 2);
  Linear({.x = nullptr, .x_stride = 64, .num_rows = 0, .outputs = {&output, 1}}, *stream);
  EXPECT_EQ(y, std::vector<float>(40, kPoison));
}

// Strides, bias and accumulation; what lies between the rows of y stays untouched.
TEST_P(LinearTest, ObeysStridesBiasAndAccumulate) {
  constexpr uint32_t kRows = 5;
  constexpr uint32_t kN = 70;
  constexpr uint32_t kK = 96;
  constexpr uint32_t kXStride = 101;
  constexpr uint32_t kYStride = 83;
  const TestMatrix w = TestMatrix::Random(format(), kN, kK, 8);
  const std::vector<float> x = RandomFloats(kRows * kXStride, 9);
  const std::vector<float> bias = RandomFloats(kN, 10);
  std::vector<float> dense;
  for (uint32_t t = 0; t < kRows; ++t) {
    dense.insert(dense.end(), x.begin() + t * kXStride, x.begin() + t * kXStride + kK);
  }
  const std::vector<float> product = Multiply(dense, kRows, w);

  for (const bool accumulate : {false, true}) {
    std::vector<float> y(kRows * kYStride, kPoison);
    const LinearOutput output{.weight = w.view(),
                              .bias = bias.data(),
                              .y = y.data(),
                              .y_stride = kYStride,
                              .accumulate = accumulate};
    const auto stream = MakeStream(isa(), 2);
    Linear({.x = x.data(), .x_stride = kXStride, .num_rows = kRows, .outputs = {&output, 1}},
           *stream);
    for (uint32_t i = 0; i < y.size(); ++i) {
      const uint32_t t = i / kYStride;
      const uint32_t n = i % kYStride;
      if (n >= kN) {
        ASSERT_EQ(y[i], kPoison) << "between rows, at " << i;
        continue;
      }
      const float sum = product[t * kN + n] + bias[n];
      const float expected = accumulate ? kPoison + sum : sum;
      // The reference adds bias and y in double; here each sum so far was rounded to 2^-24.
      const float magnitude = std::abs(product[t * kN + n]) + std::abs(sum) + std::abs(expected);
      ASSERT_NEAR(y[i], expected, magnitude * 0x1p-23f) << i;
    }
  }
}

// Query, key and value in one call, of different widths and formats.
TEST_P(LinearTest, SeveralOutputsGiveTheSameBitsAsOneByOne) {
  constexpr uint32_t kRows = 15;
  constexpr uint32_t kK = 64;
  const TestMatrix first = TestMatrix::Random(format(), 96, kK, 11);
  const TestMatrix second = TestMatrix::Random(WeightFormat::kBF16, 33, kK, 12);
  const TestMatrix third = TestMatrix::Random(WeightFormat::kF32, 8, kK, 13);
  const TestMatrix* matrices[] = {&first, &second, &third};
  const std::vector<float> x = RandomFloats(kRows * kK, 14);
  std::vector<std::vector<float>> y(3);
  std::vector<LinearOutput> outputs;
  for (int i = 0; i < 3; ++i) {
    const PackedMatrix view = matrices[i]->view();
    y[i].resize(size_t{kRows} * view.n, kPoison);
    outputs.push_back({.weight = view, .y = y[i].data(), .y_stride = view.n});
  }
  const auto stream = MakeStream(isa(), 2);
  Linear({.x = x.data(), .x_stride = kK, .num_rows = kRows, .outputs = outputs}, *stream);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(y[i], Multiply(x, kRows, *matrices[i])) << i;
}

TEST_P(LinearTest, ZerosGiveZeros) {
  const TestMatrix w = TestMatrix::Random(format(), 64, 96, 15);
  EXPECT_EQ(Multiply(std::vector<float>(3 * 96), 3, w), std::vector<float>(3 * 64));
}

// A row with NaN or infinity answers NaN or infinity and leaves its neighbours' bits alone.
TEST_P(LinearTest, BrokenRowsStayAlone) {
  constexpr uint32_t kRows = 7;
  constexpr uint32_t kN = 64;
  constexpr uint32_t kK = 64;
  const TestMatrix w = TestMatrix::Random(format(), kN, kK, 16);
  const std::vector<float> clean = RandomFloats(kRows * kK, 17);
  std::vector<float> x = clean;
  x[2 * kK + 5] = std::numeric_limits<float>::quiet_NaN();
  x[4 * kK + 63] = std::numeric_limits<float>::infinity();
  const std::vector<float> y = Multiply(x, kRows, w, 2);
  const std::vector<float> expected = Multiply(clean, kRows, w);
  for (uint32_t i = 0; i < y.size(); ++i) {
    const uint32_t row = i / kN;
    if (row == 2 || row == 4) {
      ASSERT_FALSE(std::isfinite(y[i])) << i;
    } else {
      ASSERT_EQ(y[i], expected[i]) << i;
    }
  }
}

// The largest magnitudes of both sides at once: int32 sums and int16 pairs must not saturate.
TEST_P(LinearTest, ExtremeValuesDoNotSaturate) {
  constexpr uint32_t kN = 64;
  constexpr uint32_t kK = 128;
  TestMatrix w(format(), kN, kK);
  const std::vector<uint16_t> scales(kN * kK / 32, 0x7bff);  // 65504, the largest f16
  if (format() == WeightFormat::kQ8) {
    std::vector<int8_t> values(kN * kK);
    for (size_t i = 0; i < values.size(); ++i) values[i] = i / kK % 2 == 0 ? -128 : 127;
    PackQ8({.values = values, .scales = scales, .minima = {}}, kK, w.target());
  } else if (format() == WeightFormat::kQ4) {
    const std::vector<int8_t> values(kN * kK, 15);
    PackQ4({.values = values, .scales = scales, .minima = scales}, kK, w.target());
  } else if (IsNibbles(format())) {
    const std::vector<uint8_t> largest(kN * kK / 2, 0x77);
    const std::vector<uint16_t> bf16(kN * kK / 32, 0x7cc0);  // 8e36
    PackNibbles(format(), {.codes = largest, .scales = bf16}, kK, w.target());
  } else if (format() == WeightFormat::kFp8) {
    const std::vector<uint8_t> largest(kN * kK, 0x7e);  // 448
    PackFp8({.codes = largest, .scales = std::vector<float>(kN, 9e34f), .scale_stride = 1}, kK,
            w.target());
  } else {
    const std::vector<uint16_t> large(kN * kK, 0x7e00);  // 4.2e37 as bf16
    format() == WeightFormat::kBF16 ? PackBF16(large, kK, w.target())
                                    : PackF32(std::vector<float>(kN * kK, 4e37f), kK, w.target());
  }
  const float magnitude = quantised() ? 1e20f : 0.05f;
  std::vector<float> x(2 * kK, magnitude);
  std::fill(x.begin() + kK, x.end(), -magnitude);
  ExpectProducts(x, 2, w, Multiply(x, 2, w));
}

// Activations from 1e-38 to 1e30 in one row: each block has its own scale, and blocks too small
// for one count as zeros.
TEST_P(LinearTest, BlocksOfAllMagnitudes) {
  constexpr uint32_t kK = 32 * 8;
  const TestMatrix w = TestMatrix::Random(format(), 32, kK, 18);
  std::vector<float> x = RandomFloats(kK, 19);
  constexpr float kMagnitudes[] = {1e-38f, 1e-36f, 1e-30f, 1e-10f, 1, 1e10f, 1e20f, 1e30f};
  for (uint32_t i = 0; i < kK; ++i) x[i] *= kMagnitudes[i / 32];
  ExpectProducts(x, 1, w, Multiply(x, 1, w));
  for (uint32_t i = 96; i < kK; ++i) x[i] = 0;  // only the small ones
  ExpectProducts(x, 1, w, Multiply(x, 1, w));
}

// Split or not, the rounding is the one that the reference states, for every row count of a panel.
TEST_P(LinearTest, SplitRowsAreTheSumOfTwoRoundedParts) {
  constexpr uint32_t kK = 96;
  const TestMatrix w = TestMatrix::Random(format(), 70, kK, 22);
  for (uint32_t rows = 1; rows <= 14; ++rows) {
    const std::vector<float> x = RandomFloats(size_t{rows} * kK, 23);
    ExpectProducts(x, rows, w, Multiply(x, rows, w, 2, true), true);
  }
}

TEST_P(LinearTest, ASplitRowDoesNotDependOnTheOthers) {
  constexpr uint32_t kK = 160;
  constexpr uint32_t kRows = 17;
  const TestMatrix w = TestMatrix::Random(format(), 64, kK, 24);
  const std::vector<float> x = RandomFloats(size_t{kRows} * kK, 25);
  const std::vector<float> together = Multiply(x, kRows, w, 2, true);
  for (uint32_t t = 0; t < kRows; ++t) {
    const std::vector<float> alone =
        Multiply(std::span(x).subspan(size_t{t} * kK, kK), 1, w, 1, true);
    EXPECT_EQ(std::memcmp(alone.data(), together.data() + size_t{t} * 64, 64 * sizeof(float)), 0);
  }
}

TEST_P(LinearTest, WorkspaceIsAsPlanned) {
  constexpr uint32_t kK = 160;
  const TestMatrix w = TestMatrix::Random(format(), 64, kK, 20);
  const auto stream = MakeStream(isa(), 2);
  testing::MeasuringStream measuring(*stream);
  for (const uint32_t rows : {1u, 5u, 40u}) {
    const std::vector<float> x = RandomFloats(size_t{rows} * kK, 21);
    std::vector<float> y(rows * 64);
    const LinearOutput output{.weight = w.view(), .y = y.data(), .y_stride = 64};
    Linear({.x = x.data(), .x_stride = kK, .num_rows = rows, .outputs = {&output, 1}}, measuring);
    EXPECT_LE(measuring.largest(), LinearWorkspaceBytes(format(), kK, rows));
    Linear(
        {.x = x.data(), .x_stride = kK, .num_rows = rows, .outputs = {&output, 1}, .split_x = true},
        measuring);
    EXPECT_LE(measuring.largest(), LinearWorkspaceBytes(format(), kK, rows, true));
  }
}

INSTANTIATE_TEST_SUITE_P(All, LinearTest,
                         ::testing::Combine(::testing::Values(CpuIsa::kReference, CpuIsa::kPortable,
                                                              CpuIsa::kAvx2, CpuIsa::kAvx512),
                                            ::testing::ValuesIn(testing::kAllFormats)),
                         [](const auto& param) {
                           return std::string(CpuIsaName(std::get<0>(param.param))) + "_" +
                                  testing::FormatName(std::get<1>(param.param));
                         });

}  // namespace
}  // namespace essor::kernels
