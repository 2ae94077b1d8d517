// What e4m3 weights have of their own: every code, and slices that begin inside a block of scales.
// The rest is covered by linear_test and moe_test, of which kFp8 is one of the formats.
#include <cmath>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "common/float8.h"
#include "gtest/gtest.h"
#include "kernels/cpu/linear_test_support.h"
#include "kernels/reference/linear_reference.h"

namespace essor::kernels {
namespace {

using testing::MakeStream;
using testing::ProductTolerance;
using testing::RandomFloats;
using testing::TestMatrix;

class LinearFp8Test : public ::testing::TestWithParam<CpuIsa> {
 protected:
  void SetUp() override {
    if (!CpuIsaAvailable(GetParam())) {
      GTEST_SKIP() << "this processor has no " << CpuIsaName(GetParam());
    }
  }

  std::vector<float> Multiply(std::span<const float> x, uint32_t rows, const PackedMatrix& w,
                              bool split_x = false) const {
    std::vector<float> y(size_t{rows} * w.n);
    const LinearOutput output{.weight = w, .y = y.data(), .y_stride = w.n};
    Linear({.x = x.data(),
            .x_stride = w.k,
            .num_rows = rows,
            .outputs = {&output, 1},
            .split_x = split_x},
           *MakeStream(GetParam(), 2));
    return y;
  }
};

// Row n holds code n everywhere. x picks one column, each place within a word in turn, so that the
// result is the value itself: all codes are exact in bfloat16 and the scale is a power of two.
TEST_P(LinearFp8Test, EveryCodeHasItsValue) {
  constexpr uint32_t kK = 8;
  constexpr float kScale = 0x1p-3f;
  std::vector<uint8_t> codes(256 * kK);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i / kK);
  TestMatrix w(WeightFormat::kFp8, 256, kK);
  PackFp8({.codes = codes, .scales = std::vector<float>(256, kScale), .scale_stride = 1}, kK,
          w.target());
  for (uint32_t column = 0; column < kK; ++column) {
    std::vector<float> x(kK);
    x[column] = 1;
    const std::vector<float> y = Multiply(x, 1, w.view());
    for (uint32_t code = 0; code < 256; ++code) {
      const Float8E4M3 value{static_cast<uint8_t>(code)};
      if (IsNan(value)) {
        ASSERT_TRUE(std::isnan(y[code])) << code;
      } else {
        ASSERT_EQ(y[code], ToFloat(value) * kScale) << "code " << code << " column " << column;
      }
    }
  }
}

// Slices from everywhere in a block, of widths that end everywhere.
TEST_P(LinearFp8Test, SlicesMayCutBlocks) {
  for (const uint32_t offset : {0u, 1u, 30u, 32u, 64u, 80u, 127u}) {
    for (const uint32_t k : {1u, 3u, 47u, 98u, 128u, 300u}) {
      const TestMatrix w = TestMatrix::Random(WeightFormat::kFp8, 40, k, 1, offset);
      for (const uint32_t rows : {1u, 5u, 14u}) {
        const std::vector<float> x = RandomFloats(size_t{rows} * k, 2);
        std::vector<float> rounded(x.size());
        for (const bool split : {false, true}) {
          split ? reference::SplitToBFloat16(x, rounded)
                : reference::RoundActivations(WeightFormat::kFp8, x, rounded);
          const std::vector<float> y = Multiply(x, rows, w.view(), split);
          std::vector<float> weights(k);
          for (uint32_t i = 0; i < y.size(); ++i) {
            UnpackRow(w.view(), i % 40, weights);
            const auto row = std::span(rounded).subspan(size_t{i / 40} * k, k);
            double sum = 0;
            for (uint32_t c = 0; c < k; ++c) sum += double{row[c]} * double{weights[c]};
            ASSERT_NEAR(y[i], sum, ProductTolerance(row, weights))
                << "from " << offset << ", " << k << " columns, " << rows << " rows, value " << i;
          }
        }
      }
    }
  }
}

// A matrix cut into two slices of columns, as two ranks hold it: their products add up to the whole
// one's, with the error of one summation more.
TEST_P(LinearFp8Test, SlicesAddUpToTheWhole) {
  constexpr uint32_t kN = 40;
  constexpr uint32_t kK = 300;
  std::vector<uint8_t> codes(kN * kK);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i * 11 % 127);
  const std::vector<float> scales = RandomFloats(kN * 3, 3);
  TestMatrix whole(WeightFormat::kFp8, kN, kK);
  PackFp8({.codes = codes, .scales = scales, .scale_stride = 3}, kK, whole.target());
  const std::vector<float> x = RandomFloats(kK, 4);
  const std::vector<float> expected = Multiply(x, 1, whole.view());
  for (const uint32_t cut : {16u, 96u, 150u, 257u}) {
    TestMatrix left(WeightFormat::kFp8, kN, cut);
    TestMatrix right(WeightFormat::kFp8, kN, kK - cut, cut % 128);
    PackFp8({.codes = codes, .scales = scales, .scale_stride = 3}, kK, left.target());
    PackFp8({.codes = std::span(codes).subspan(cut),
             .scales = std::span(scales).subspan(cut / 128),
             .scale_stride = 3},
            kK, right.target());
    const std::vector<float> a = Multiply(std::span(x).first(cut), 1, left.view());
    const std::vector<float> b = Multiply(std::span(x).subspan(cut), 1, right.view());
    std::vector<float> weights(kK);
    for (uint32_t n = 0; n < kN; ++n) {
      UnpackRow(whole.view(), n, weights);
      ASSERT_NEAR(a[n] + b[n], expected[n], 2 * ProductTolerance(x, weights)) << "cut at " << cut;
    }
  }
}

// The down product of a rank whose columns begin inside a block: chunked for many rows, whole for
// one, the same bits; also from where no chunk of whole blocks is a multiple of 32 columns.
TEST_P(LinearFp8Test, LongDownProductsOfCutBlocks) {
  constexpr uint32_t kRows = 15;
  constexpr uint32_t kK = 32;
  constexpr uint32_t kI = 8'200;  // beyond a chunk
  const TestMatrix gate = TestMatrix::Random(WeightFormat::kFp8, kI, kK, 5);
  const TestMatrix up = TestMatrix::Random(WeightFormat::kFp8, kI, kK, 6);
  const std::vector<float> x = RandomFloats(kRows * kK, 7);
  for (const uint32_t offset : {96u, 50u}) {
    const TestMatrix down = TestMatrix::Random(WeightFormat::kFp8, kK, kI, 8, offset);
    const GatedFfnWeights weights{gate.view(), up.view(), down.view()};
    const auto run = [&](const float* rows, uint32_t count) {
      std::vector<float> y(count * kK);
      GatedFfn({.x = rows, .num_rows = count, .weights = weights, .y = y.data()},
               *MakeStream(GetParam(), 2));
      return y;
    };
    const std::vector<float> y = run(x.data(), kRows);
    for (uint32_t t = 0; t < kRows; ++t) {
      const std::vector<float> alone = run(x.data() + t * kK, 1);
      ASSERT_EQ(std::memcmp(&y[t * kK], alone.data(), kK * sizeof(float)), 0) << t;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, LinearFp8Test,
                         ::testing::Values(CpuIsa::kReference, CpuIsa::kPortable, CpuIsa::kAvx2,
                                           CpuIsa::kAvx512),
                         [](const auto& param) { return std::string(CpuIsaName(param.param)); });

}  // namespace
}  // namespace essor::kernels
