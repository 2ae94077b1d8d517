#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <span>
#include <vector>

#include "common/float16.h"
#include "common/float4.h"
#include "common/float8.h"
#include "gtest/gtest.h"
#include "kernels/cpu/linear_test_support.h"
#include "kernels/cpu/pack_layout.h"
#include "kernels/packed_matrix.h"

namespace essor::kernels {
namespace {

using testing::TestMatrix;

struct Shape {
  uint32_t n;
  uint32_t k;
};

// Row counts around the tile width and the pack group, columns around the formats' granules.
constexpr Shape kShapes[] = {{1, 32},   {31, 64},  {32, 96}, {33, 32},
                             {64, 160}, {100, 32}, {129, 64}};
constexpr Shape kOddColumns[] = {{1, 1}, {5, 7}, {33, 31}, {64, 33}, {70, 65}};

// Row stride of the sources: more than a row, to see that it is obeyed.
uint32_t StrideOf(Shape shape) { return (shape.k + 31) / 32 * 32 + 32; }

std::vector<int8_t> Values(size_t count, int lowest, int highest, uint32_t seed) {
  std::mt19937 engine(seed);
  std::vector<int8_t> values(count);
  for (int8_t& value : values) {
    value = static_cast<int8_t>(lowest + static_cast<int>(engine() % (highest - lowest + 1)));
  }
  return values;
}

std::vector<uint16_t> Halves(size_t count, uint32_t seed) {
  const std::vector<float> floats = testing::RandomFloats(count, seed);
  std::vector<uint16_t> halves(count);
  for (size_t i = 0; i < count; ++i) halves[i] = ToFloat16(floats[i]).bits;
  return halves;
}

float HalfToFloat(uint16_t bits) { return ToFloat(Float16{bits}); }

template <typename Expected>
void ExpectRows(const TestMatrix& matrix, const Expected& expected) {
  const PackedMatrix view = matrix.view();
  std::vector<float> row(view.k);
  for (uint32_t n = 0; n < view.n; ++n) {
    UnpackRow(view, n, row);
    for (uint32_t c = 0; c < view.k; ++c) {
      ASSERT_EQ(row[c], expected(n, c))
          << view.n << "x" << view.k << " row " << n << " column " << c;
    }
  }
  EXPECT_TRUE(matrix.GuardsIntact());
}

TEST(PackTest, FloatsComeBackExactly) {
  for (const auto& shapes :
       {std::span<const Shape>(kShapes), std::span<const Shape>(kOddColumns)}) {
    for (const Shape shape : shapes) {
      const uint32_t stride = StrideOf(shape);
      const std::vector<float> rows = testing::RandomFloats(size_t{shape.n} * stride, 1);
      TestMatrix matrix(WeightFormat::kF32, shape.n, shape.k);
      PackF32(rows, stride, matrix.target());
      ExpectRows(matrix, [&](uint32_t n, uint32_t c) { return rows[n * stride + c]; });
    }
  }
}

TEST(PackTest, BFloat16ComesBackExactly) {
  for (const auto& shapes :
       {std::span<const Shape>(kShapes), std::span<const Shape>(kOddColumns)}) {
    for (const Shape shape : shapes) {
      const uint32_t stride = StrideOf(shape);
      std::vector<uint16_t> rows;
      for (const float value : testing::RandomFloats(size_t{shape.n} * stride, 2)) {
        rows.push_back(ToBFloat16(value).bits);
      }
      TestMatrix matrix(WeightFormat::kBF16, shape.n, shape.k);
      PackBF16(rows, stride, matrix.target());
      ExpectRows(matrix,
                 [&](uint32_t n, uint32_t c) { return ToFloat(BFloat16{rows[n * stride + c]}); });
    }
  }
}

std::vector<std::byte> BytesOf(TestMatrix& matrix) {
  const PackedMatrix view = matrix.view();
  return {view.data, view.data + PackedMatrixBytes(view.format, view.n, view.k)};
}

// Calls pack(first row, target) for groups of rows, one call each.
template <typename Pack>
void PackInGroups(TestMatrix& matrix, const Pack& pack) {
  PackTarget target = matrix.target();
  for (uint32_t first = 0; first < target.n; first += kPackRowGroup) {
    target.first_row = first;
    target.num_rows = std::min(kPackRowGroup, target.n - first);
    pack(first, target);
  }
}

// Byte for byte what packing the rows gives, whole and in groups, at any alignment of the source.
TEST(PackTest, ColumnsArePackedAsRowsAre) {
  for (const auto& shapes :
       {std::span<const Shape>(kShapes), std::span<const Shape>(kOddColumns)}) {
    for (const Shape shape : shapes) {
      const uint32_t stride = shape.n + 3;  // other columns stand between
      const std::vector<float> columns = testing::RandomFloats(size_t{shape.k} * stride, 1);
      std::vector<uint16_t> halves;
      for (const float value : columns) halves.push_back(ToBFloat16(value).bits);
      std::vector<std::byte> bytes(1 + 2 * halves.size());
      std::memcpy(bytes.data() + 1, halves.data(), 2 * halves.size());
      const std::span<const std::byte> odd = std::span(bytes).subspan(1);
      std::vector<float> rows(size_t{shape.n} * shape.k);
      std::vector<uint16_t> half_rows(rows.size());
      for (uint32_t n = 0; n < shape.n; ++n) {
        for (uint32_t c = 0; c < shape.k; ++c) {
          rows[n * shape.k + c] = columns[c * stride + n];
          half_rows[n * shape.k + c] = halves[c * stride + n];
        }
      }
      TestMatrix expected(WeightFormat::kF32, shape.n, shape.k);
      TestMatrix expected_half(WeightFormat::kBF16, shape.n, shape.k);
      PackF32(rows, shape.k, expected.target());
      PackBF16(half_rows, shape.k, expected_half.target());
      for (const bool in_groups : {false, true}) {
        TestMatrix matrix(WeightFormat::kF32, shape.n, shape.k);
        TestMatrix half(WeightFormat::kBF16, shape.n, shape.k);
        if (in_groups) {
          PackInGroups(matrix, [&](uint32_t first, const PackTarget& target) {
            PackF32Columns(std::span(columns).subspan(first), stride, target);
          });
          PackInGroups(half, [&](uint32_t first, const PackTarget& target) {
            PackBF16Columns(odd.subspan(2 * first), stride, target);
          });
        } else {
          PackF32Columns(columns, stride, matrix.target());
          PackBF16Columns(odd, stride, half.target());
        }
        EXPECT_EQ(BytesOf(matrix), BytesOf(expected)) << shape.n << "x" << shape.k;
        EXPECT_EQ(BytesOf(half), BytesOf(expected_half)) << shape.n << "x" << shape.k;
        EXPECT_TRUE(matrix.GuardsIntact() && half.GuardsIntact());
      }
    }
  }
}

TEST(PackTest, EightBitValuesComeBackExactly) {
  for (const Shape shape : kShapes) {
    const uint32_t stride = StrideOf(shape);
    const auto values = Values(size_t{shape.n} * stride, -128, 127, 3);
    const auto scales = Halves(values.size() / 32, 4);
    TestMatrix matrix(WeightFormat::kQ8, shape.n, shape.k);
    PackQ8({.values = values, .scales = scales, .minima = {}}, stride, matrix.target());
    ExpectRows(matrix, [&](uint32_t n, uint32_t c) {
      const size_t i = size_t{n} * stride + c;
      return HalfToFloat(scales[i / 32]) * static_cast<float>(values[i]);
    });
  }
}

TEST(PackTest, FourBitValuesComeBackExactly) {
  for (const Shape shape : kShapes) {
    const uint32_t stride = StrideOf(shape);
    const auto values = Values(size_t{shape.n} * stride, 0, 15, 5);
    const auto scales = Halves(values.size() / 32, 6);
    const auto minima = Halves(values.size() / 32, 7);
    TestMatrix matrix(WeightFormat::kQ4, shape.n, shape.k);
    PackQ4({.values = values, .scales = scales, .minima = minima}, stride, matrix.target());
    ExpectRows(matrix, [&](uint32_t n, uint32_t c) {
      const size_t i = size_t{n} * stride + c;
      return HalfToFloat(scales[i / 32]) * static_cast<float>(values[i]) +
             HalfToFloat(minima[i / 32]);
    });
  }
}

// Groups packed by different calls, in any order, give the same bytes as one call; and every byte
// is written, whatever was there before.
TEST(PackTest, GroupsMayBePackedSeparately) {
  constexpr Shape kShape{150, 45};
  const std::vector<float> rows = testing::RandomFloats(size_t{kShape.n} * kShape.k, 8);
  TestMatrix whole(WeightFormat::kF32, kShape.n, kShape.k);
  std::memset(whole.data(), 0x11, PackedMatrixBytes(WeightFormat::kF32, kShape.n, kShape.k));
  PackF32(rows, kShape.k, whole.target());

  TestMatrix parts(WeightFormat::kF32, kShape.n, kShape.k);
  for (const uint32_t first : {128u, 0u, 64u}) {
    PackTarget target = parts.target();
    target.first_row = first;
    target.num_rows = std::min(kPackRowGroup, kShape.n - first);
    PackF32(std::span(rows).subspan(size_t{first} * kShape.k, size_t{target.num_rows} * kShape.k),
            kShape.k, target);
  }
  EXPECT_EQ(std::memcmp(whole.data(), parts.data(),
                        PackedMatrixBytes(WeightFormat::kF32, kShape.n, kShape.k)),
            0);
}

TEST(PackTest, QuantisedPaddingIsWritten) {
  constexpr Shape kShape{33, 64};
  for (const WeightFormat format : {WeightFormat::kQ8, WeightFormat::kQ4}) {
    const size_t bytes = PackedMatrixBytes(format, kShape.n, kShape.k);
    const auto values = Values(size_t{kShape.n} * kShape.k, 0, 15, 9);
    const auto halves = Halves(values.size() / 32, 10);
    const QuantRows rows{.values = values, .scales = halves, .minima = halves};
    TestMatrix first(format, kShape.n, kShape.k);
    TestMatrix second(format, kShape.n, kShape.k);
    std::memset(second.data(), 0x22, bytes);
    for (TestMatrix* matrix : {&first, &second}) {
      format == WeightFormat::kQ8 ? PackQ8(rows, kShape.k, matrix->target())
                                  : PackQ4(rows, kShape.k, matrix->target());
    }
    EXPECT_EQ(std::memcmp(first.data(), second.data(), bytes), 0);
  }
}

// Every code, NaN included, in slices that begin anywhere in a block of columns.
TEST(PackTest, Fp8ComesBackExactly) {
  constexpr Shape kFp8Shapes[] = {{1, 1}, {33, 127}, {64, 128}, {70, 129}, {100, 260}, {8, 400}};
  for (const Shape shape : kFp8Shapes) {
    for (const uint32_t offset : {0u, 1u, 16u, 32u, 66u, 127u}) {
      const uint32_t stride = StrideOf(shape);
      std::vector<uint8_t> codes(size_t{shape.n} * stride);
      for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i * 7 + i / 256);
      const size_t blocks = (offset + shape.k + 127) / 128;
      const std::vector<float> scales = testing::RandomFloats(shape.n * (blocks + 3), 11);
      TestMatrix matrix(WeightFormat::kFp8, shape.n, shape.k, offset);
      PackFp8({.codes = codes, .scales = scales, .scale_stride = blocks + 3}, stride,
              matrix.target());
      std::vector<float> row(shape.k);
      for (uint32_t n = 0; n < shape.n; ++n) {
        UnpackRow(matrix.view(), n, row);
        for (uint32_t c = 0; c < shape.k; ++c) {
          const float value = ToFloat(Float8E4M3{codes[size_t{n} * stride + c]}) *
                              scales[n * (blocks + 3) + (offset + c) / 128];
          ASSERT_TRUE(std::isnan(value) ? std::isnan(row[c]) : row[c] == value)
              << shape.n << "x" << shape.k << " from " << offset << " row " << n << " column " << c;
        }
      }
      EXPECT_TRUE(matrix.GuardsIntact());
    }
  }
}

TEST(PackTest, Fp8GroupsMayBePackedSeparatelyAndPaddingIsWritten) {
  constexpr Shape kShape{150, 205};
  constexpr uint32_t kOffset = 35;
  std::mt19937 engine(12);
  std::vector<uint8_t> codes(kShape.n * kShape.k);
  for (uint8_t& code : codes) code = static_cast<uint8_t>(engine());
  const std::vector<float> scales = testing::RandomFloats(kShape.n * 2, 13);
  const size_t bytes = PackedMatrixBytes(WeightFormat::kFp8, kShape.n, kShape.k, kOffset);
  TestMatrix whole(WeightFormat::kFp8, kShape.n, kShape.k, kOffset);
  std::memset(whole.data(), 0x11, bytes);
  PackFp8({.codes = codes, .scales = scales, .scale_stride = 2}, kShape.k, whole.target());
  TestMatrix parts(WeightFormat::kFp8, kShape.n, kShape.k, kOffset);
  for (const uint32_t first : {128u, 0u, 64u}) {
    PackTarget target = parts.target();
    target.first_row = first;
    target.num_rows = std::min(kPackRowGroup, kShape.n - first);
    PackFp8({.codes = std::span(codes).subspan(first * kShape.k),
             .scales = std::span(scales).subspan(first * 2),
             .scale_stride = 2},
            kShape.k, target);
  }
  EXPECT_EQ(std::memcmp(whole.data(), parts.data(), bytes), 0);
}

// Every code in every place of a word.
TEST(PackTest, NibblesComeBackExactly) {
  for (const WeightFormat format : {WeightFormat::kFp4, WeightFormat::kInt4}) {
    for (const Shape shape : kShapes) {
      const uint32_t stride = StrideOf(shape);
      std::vector<uint8_t> codes(size_t{shape.n} * stride / 2);
      for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i * 37 + i / 256);
      std::vector<uint16_t> scales(codes.size() / 16);
      for (size_t i = 0; i < scales.size(); ++i) {
        scales[i] = static_cast<uint16_t>(0x3f00 + i % 199);
      }
      TestMatrix matrix(format, shape.n, shape.k);
      PackNibbles(format, {.codes = codes, .scales = scales}, stride, matrix.target());
      ExpectRows(matrix, [&](uint32_t n, uint32_t c) {
        const size_t at = size_t{n} * stride + c;
        const auto code =
            static_cast<uint8_t>(c % 2 == 0 ? codes[at / 2] & 15 : codes[at / 2] >> 4);
        const float value =
            format == WeightFormat::kFp4 ? ToFloat(Float4E2M1{code}) : ToFloat(OffsetInt4{code});
        return ToFloat(BFloat16{scales[at / 32]}) * value;
      });
    }
  }
}

TEST(PackTest, NibbleGroupsMayBePackedSeparatelyAndPaddingIsWritten) {
  constexpr Shape kShape{150, 96};
  std::mt19937 engine(14);
  std::vector<uint8_t> codes(kShape.n * kShape.k / 2);
  for (uint8_t& code : codes) code = static_cast<uint8_t>(engine());
  const std::vector<uint16_t> scales = Halves(codes.size() / 16, 15);
  const size_t bytes = PackedMatrixBytes(WeightFormat::kFp4, kShape.n, kShape.k);
  TestMatrix whole(WeightFormat::kFp4, kShape.n, kShape.k);
  std::memset(whole.data(), 0x11, bytes);
  PackNibbles(WeightFormat::kFp4, {.codes = codes, .scales = scales}, kShape.k, whole.target());
  TestMatrix parts(WeightFormat::kFp4, kShape.n, kShape.k);
  for (const uint32_t first : {128u, 0u, 64u}) {
    PackTarget target = parts.target();
    target.first_row = first;
    target.num_rows = std::min(kPackRowGroup, kShape.n - first);
    PackNibbles(WeightFormat::kFp4,
                {.codes = std::span(codes).subspan(first * kShape.k / 2),
                 .scales = std::span(scales).subspan(first * kShape.k / 32)},
                kShape.k, target);
  }
  EXPECT_EQ(std::memcmp(whole.data(), parts.data(), bytes), 0);
}

// What the memory plan counts on: 8.5, 5 and 4.5 bits a weight, rows padded to 32.
TEST(PackTest, BytesPerFormat) {
  EXPECT_EQ(PackedMatrixBytes(WeightFormat::kF32, 33, 10), 64 * 10 * 4);
  EXPECT_EQ(PackedMatrixBytes(WeightFormat::kBF16, 64, 11), 64 * 12 * 2);
  EXPECT_EQ(PackedMatrixBytes(WeightFormat::kQ8, 32, 64), 32 * 64 * 17 / 16);
  EXPECT_EQ(PackedMatrixBytes(WeightFormat::kQ4, 32, 64), 32 * 64 * 5 / 8);
  EXPECT_EQ(PackedMatrixBytes(WeightFormat::kQ8, 0, 64), 0);
  EXPECT_EQ(PackedMatrixBytes(WeightFormat::kFp4, 33, 64), 64 * 64 * 9 / 16);
  EXPECT_EQ(PackedMatrixBytes(WeightFormat::kInt4, 32, 64), 32 * 64 * 9 / 16);
  // A byte each and a float per row and block; columns come in fours.
  EXPECT_EQ(PackedMatrixBytes(WeightFormat::kFp8, 33, 256), 64 * (256 + 2 * 4));
  EXPECT_EQ(PackedMatrixBytes(WeightFormat::kFp8, 32, 129), 32 * (132 + 2 * 4));
  EXPECT_EQ(PackedMatrixBytes(WeightFormat::kFp8, 32, 256, 64), 32 * (256 + 3 * 4));
  // Two boundaries inside words of four columns.
  EXPECT_EQ(PackedMatrixBytes(WeightFormat::kFp8, 32, 256, 30), 32 * (256 + 2 * 4 + 3 * 4));
}

TEST(PackDeathTest, RefusesBrokenTargets) {
  const std::vector<float> rows(64 * 4);
  TestMatrix matrix(WeightFormat::kF32, 100, 4);
  PackTarget target = matrix.target();
  target.num_rows = 64;
  target.first_row = 32;
  EXPECT_DEATH(PackF32(rows, 4, target), "first_row");
  target.first_row = 64;
  EXPECT_DEATH(PackF32(rows, 4, target), "num_rows");
  EXPECT_DEATH(PackedMatrixBytes(WeightFormat::kQ8, 10, 33), "kQuantBlock");
  EXPECT_DEATH(PackedMatrixBytes(WeightFormat::kInt4, 10, 33), "kQuantBlock");
}

}  // namespace
}  // namespace essor::kernels
