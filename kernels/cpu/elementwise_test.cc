#include "kernels/elementwise.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/row_test_support.h"
#include "kernels/reference/elementwise.h"
#include "kernels/rope_table.h"

namespace essor::kernels {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Eq;

class ElementwiseTest : public EachIsaTest {};
INSTANTIATE_TEST_SUITE_P(Isa, ElementwiseTest, ::testing::ValuesIn(kAllIsas), IsaTestName);

// The sum of n squares is taken in at least 4 lanes x 4 chains, whose longest path has n / 16 + 6
// additions; each rounds, and the root halves the relative error. Five more roundings follow (mean,
// eps, root, reciprocal, two products); the tail of a row adds one vector per 4 elements at most to
// one chain, counted by taking n / 16 + 10.
double NormTolerance(uint32_t n) { return ((n / 16 + 10) / 2.0 + 6) * kRounding; }

TEST_P(ElementwiseTest, RmsNormEqualsTheReference) {
  for (uint32_t width : {1u, 3u, 16u, 63u, 64u, 65u, 576u, 2048u, 4099u}) {
    for (uint32_t rows : {1u, 3u, 70u}) {
      auto stream = MakeStream(2);
      const auto x = RandomFloats(size_t{rows} * width, width);
      const auto weight = RandomFloats(width, width + 1);
      std::vector<float> expected(x.size());
      std::vector<float> y(x.size(), kPoison);
      RmsNormParams params{.x = x.data(),
                           .weight = weight.data(),
                           .y = expected.data(),
                           .num_rows = rows,
                           .width = width,
                           .eps = 1e-5f};
      reference::RmsNorm(params);
      params.y = y.data();
      RmsNorm(params, *stream);
      for (size_t i = 0; i < y.size(); ++i) {
        ASSERT_NEAR(y[i], expected[i], NormTolerance(width) * std::abs(expected[i]))
            << "width " << width << " element " << i;
      }
    }
  }
}

TEST_P(ElementwiseTest, RmsNormAddsToTheResidualFirstAndMayWorkInPlace) {
  constexpr uint32_t kRows = 5;
  constexpr uint32_t kWidth = 77;
  auto stream = MakeStream();
  auto x = RandomFloats(kRows * kWidth, 1);
  auto residual = RandomFloats(kRows * kWidth, 2);
  const auto weight = RandomFloats(kWidth, 3);
  std::vector<float> sum(x.size());
  for (size_t i = 0; i < x.size(); ++i) sum[i] = residual[i] + x[i];
  std::vector<float> expected(x.size());
  reference::RmsNorm({.x = sum.data(),
                      .weight = weight.data(),
                      .y = expected.data(),
                      .num_rows = kRows,
                      .width = kWidth,
                      .eps = 1e-6f});
  RmsNorm({.x = x.data(),
           .residual = residual.data(),
           .weight = weight.data(),
           .y = x.data(),
           .num_rows = kRows,
           .width = kWidth,
           .eps = 1e-6f},
          *stream);
  EXPECT_EQ(residual, sum);
  for (size_t i = 0; i < x.size(); ++i) {
    ASSERT_NEAR(x[i], expected[i], NormTolerance(kWidth) * std::abs(expected[i]));
  }
}

// By hand: rms of (3, 4, 0, 0) is 2.5.
TEST_P(ElementwiseTest, RmsNormOfAKnownRow) {
  auto stream = MakeStream();
  const std::vector<float> x = {3, 4, 0, 0};
  const std::vector<float> weight = {1, 2, 1, 1};
  std::vector<float> y(4, kPoison);
  RmsNorm(
      {.x = x.data(), .weight = weight.data(), .y = y.data(), .num_rows = 1, .width = 4, .eps = 0},
      *stream);
  EXPECT_THAT(y, ElementsAre(::testing::FloatEq(1.2f), ::testing::FloatEq(3.2f), 0, 0));
}

// A row alone, and the same row among others shared out to threads: the same bits.
TEST_P(ElementwiseTest, RmsNormOfARowDoesNotDependOnTheOthers) {
  constexpr uint32_t kRows = 301;
  constexpr uint32_t kWidth = 579;
  const auto x = RandomFloats(kRows * kWidth, 1);
  const auto weight = RandomFloats(kWidth, 3);
  std::vector<float> together(x.size());
  std::vector<float> alone(x.size());
  auto one = MakeStream(1);
  auto three = MakeStream(3);
  RmsNormParams params{.x = x.data(),
                       .weight = weight.data(),
                       .y = together.data(),
                       .num_rows = kRows,
                       .width = kWidth,
                       .eps = 1e-5f};
  RmsNorm(params, *three);
  params.num_rows = 1;
  for (uint32_t t = 0; t < kRows; ++t) {
    params.x = x.data() + t * kWidth;
    params.y = alone.data() + t * kWidth;
    RmsNorm(params, *one);
  }
  EXPECT_EQ(std::memcmp(together.data(), alone.data(), alone.size() * sizeof(float)), 0);
}

// Rows with padding between them, in two parts of uneven width: the sums of both give the norm of
// the whole row, and the padding stays as it was.
TEST_P(ElementwiseTest, NormBySquaresOfPartsIsRmsNormOfTheWholeRow) {
  for (uint32_t width : {3u, 16u, 65u, 384u, 4099u}) {
    const uint32_t first = width / 3;
    const uint32_t stride = width + 2;
    for (uint32_t rows : {1u, 5u, 130u}) {
      auto stream = MakeStream(2);
      std::vector<float> x = RandomFloats(size_t{rows} * stride, width);
      const auto weight = RandomFloats(width, width + 1);
      std::vector<float> expected(x);
      std::vector<float> squares(size_t{rows} * 2, kPoison);
      for (uint32_t t = 0; t < rows; ++t) {
        float* row = expected.data() + size_t{t} * stride;
        reference::RmsNorm({.x = row,
                            .weight = weight.data(),
                            .y = row,
                            .num_rows = 1,
                            .width = width,
                            .eps = 1e-5f});
      }
      const uint32_t begins[] = {0, first};
      const uint32_t widths[] = {first, width - first};
      for (uint32_t part = 0; part < 2; ++part) {
        RowSquares({.x = x.data() + begins[part],
                    .x_stride = stride,
                    .num_rows = rows,
                    .width = widths[part],
                    .squares = squares.data() + part,
                    .squares_stride = 2},
                   *stream);
      }
      for (uint32_t t = 0; t < rows; ++t) squares[2 * t] += squares[2 * t + 1];
      for (uint32_t part = 0; part < 2; ++part) {
        NormBySquares({.x = x.data() + begins[part],
                       .x_stride = stride,
                       .num_rows = rows,
                       .width = widths[part],
                       .weight = weight.data() + begins[part],
                       .squares = squares.data(),
                       .squares_stride = 2,
                       .total_width = width,
                       .eps = 1e-5f},
                      *stream);
      }
      // One more rounding than a norm at once: the addition of the parts.
      const double tolerance = NormTolerance(width) + kRounding;
      for (size_t i = 0; i < x.size(); ++i) {
        const bool padding = i % stride >= width;
        ASSERT_NEAR(x[i], expected[i], padding ? 0 : tolerance * std::abs(expected[i]))
            << "width " << width << " element " << i;
      }
    }
  }
}

// By hand: the squares of (3, 4) are 25; over a row of 4, eps 0, the rms is 2.5.
TEST_P(ElementwiseTest, RowSquaresAndNormOfAKnownPart) {
  auto stream = MakeStream();
  std::vector<float> x = {3, 4};
  const std::vector<float> weight = {1, 2};
  float squares = kPoison;
  RowSquares({.x = x.data(),
              .x_stride = 2,
              .num_rows = 1,
              .width = 2,
              .squares = &squares,
              .squares_stride = 1},
             *stream);
  EXPECT_EQ(squares, 25.0f);
  NormBySquares({.x = x.data(),
                 .x_stride = 2,
                 .num_rows = 1,
                 .width = 2,
                 .weight = weight.data(),
                 .squares = &squares,
                 .squares_stride = 1,
                 .total_width = 4,
                 .eps = 0},
                *stream);
  EXPECT_THAT(x, ElementsAre(::testing::FloatEq(1.2f), ::testing::FloatEq(3.2f)));
}

// A row alone, and the same row among others shared out to threads: the same bits.
TEST_P(ElementwiseTest, RowSquaresAndNormOfARowDoNotDependOnTheOthers) {
  constexpr uint32_t kRows = 301;
  constexpr uint32_t kWidth = 579;
  const auto weight = RandomFloats(kWidth, 3);
  auto together = RandomFloats(kRows * kWidth, 1);
  auto alone = together;
  const auto run = [&](float* x, uint32_t rows, Stream& stream) {
    std::vector<float> squares(rows, kPoison);
    RowSquares({.x = x,
                .x_stride = kWidth,
                .num_rows = rows,
                .width = kWidth,
                .squares = squares.data(),
                .squares_stride = 1},
               stream);
    NormBySquares({.x = x,
                   .x_stride = kWidth,
                   .num_rows = rows,
                   .width = kWidth,
                   .weight = weight.data(),
                   .squares = squares.data(),
                   .squares_stride = 1,
                   .total_width = 2 * kWidth,
                   .eps = 1e-6f},
                  stream);
  };
  run(together.data(), kRows, *MakeStream(3));
  auto one = MakeStream(1);
  for (uint32_t t = 0; t < kRows; ++t) run(alone.data() + t * kWidth, 1, *one);
  EXPECT_EQ(std::memcmp(together.data(), alone.data(), alone.size() * sizeof(float)), 0);
}

TEST_P(ElementwiseTest, NothingHappensWithoutRows) {
  auto stream = MakeStream(2);
  RmsNorm({.x = nullptr, .weight = nullptr, .y = nullptr, .num_rows = 0, .width = 8, .eps = 0},
          *stream);
  Embedding({.table = {.k = 8}, .first_id = 0, .token_ids = nullptr, .num_rows = 0, .y = nullptr},
            *stream);
  LayerNorm(LayerNormParams{}, *stream);
  RowSquares(RowSquaresParams{}, *stream);
  NormBySquares(NormBySquaresParams{}, *stream);
  QkNormRope(QkNormRopeParams{}, *stream);
  Add(nullptr, nullptr, 0, *stream);
}

struct RopeCase {
  uint32_t head_dim;
  uint32_t rotary_dim;
  bool interleaved;
  bool norm;
  bool unit_norm = false;
  double temperature = 0;
};

class QkNormRopeRun {
 public:
  QkNormRopeRun(const RopeCase& c, uint32_t rows)
      : case_(c),
        rows_(rows),
        q(RandomFloats(size_t{rows} * QStride(), 1)),
        k(RandomFloats(size_t{rows} * KStride(), 2)),
        q_norm_(RandomFloats(c.head_dim, 3)),
        k_norm_(RandomFloats(c.head_dim, 4)),
        cos_(kMaxPositions * c.rotary_dim / 2),
        sin_(cos_.size()) {
    const auto frequencies = RandomFloats(c.rotary_dim / 2, 5);
    FillRopeTable(frequencies, 1.25f, kMaxPositions, cos_.data(), sin_.data());
    for (uint32_t t = 0; t < rows; ++t) positions_.push_back((t * 7 + 3) % kMaxPositions);
  }
  QkNormRopeParams Params() {
    return {.q = q.data(),
            .k = k.data(),
            .q_stride = QStride(),
            .k_stride = KStride(),
            .num_rows = rows_,
            .num_heads = kHeads,
            .num_kv_heads = kKvHeads,
            .head_dim = case_.head_dim,
            .q_norm = case_.norm ? q_norm_.data() : nullptr,
            .k_norm = case_.norm ? k_norm_.data() : nullptr,
            .norm_eps = 1e-6f,
            .positions = positions_.data(),
            .cos = cos_.data(),
            .sin = sin_.data(),
            .rotary_dim = case_.rotary_dim,
            .interleaved = case_.interleaved,
            .unit_norm_after = case_.unit_norm,
            .temperature = {.scale = case_.temperature, .floor_positions = 8}};
  }
  // Padding after the heads, as in a buffer that also holds v.
  uint32_t QStride() const { return kHeads * case_.head_dim + 5; }
  uint32_t KStride() const { return kKvHeads * case_.head_dim + 3; }

 private:
  static constexpr uint32_t kMaxPositions = 50;
  static constexpr uint32_t kHeads = 3;
  static constexpr uint32_t kKvHeads = 1;
  const RopeCase case_;
  const uint32_t rows_;

 public:
  std::vector<float> q;
  std::vector<float> k;

 private:
  const std::vector<float> q_norm_;
  const std::vector<float> k_norm_;
  std::vector<float> cos_;
  std::vector<float> sin_;
  std::vector<uint32_t> positions_;
};

// A rotated value is a c - b s with |c|, |s| <= 1.25: three roundings, of terms that are below
// 1.25 (|a| + |b|); with a norm before or behind, its relative error on a and b. Values are below 6
// here and normalised ones below 6 * 6 / rms; the temperature, one more rounding, is below 1.5.
TEST_P(ElementwiseTest, QkNormRopeEqualsTheReference) {
  const RopeCase cases[] = {{64, 64, false, false},
                            {64, 64, true, false},
                            {128, 128, false, true},
                            {64, 32, true, true},
                            {80, 80, false, true},
                            {16, 10, true, false},
                            {6, 6, false, true},
                            {96, 0, false, true},
                            {10, 0, false, false},
                            {64, 48, false, false},
                            {256, 128, true, false},
                            {128, 128, true, false, true},
                            {20, 20, false, false, true},
                            {40, 0, false, false, false, 0.25},
                            {16, 8, true, true, true, 0.25}};
  for (const RopeCase& c : cases) {
    for (uint32_t rows : {1u, 2u, 130u}) {
      auto stream = MakeStream(2);
      QkNormRopeRun expected(c, rows);
      QkNormRopeRun actual(c, rows);
      reference::QkNormRope(expected.Params());
      QkNormRope(actual.Params(), *stream);
      const bool norm = c.norm || c.unit_norm;
      const double relative = 5 * kRounding + (norm ? 2 * NormTolerance(c.head_dim) : 0);
      const double largest = norm ? 36.0 : 6.0;
      const double tolerance = relative * 1.25 * 2 * 1.5 * largest;
      for (size_t i = 0; i < actual.q.size(); ++i) {
        ASSERT_NEAR(actual.q[i], expected.q[i], tolerance) << c.head_dim << " q " << i;
      }
      for (size_t i = 0; i < actual.k.size(); ++i) {
        ASSERT_NEAR(actual.k[i], expected.k[i], tolerance) << c.head_dim << " k " << i;
      }
    }
  }
}

// By hand, a quarter turn: (a, b) becomes (-b, a). Which elements form pairs is the layout.
TEST_P(ElementwiseTest, RopeLayoutsPairDifferentElements) {
  auto stream = MakeStream();
  const std::vector<float> cos = {0, 0};
  const std::vector<float> sin = {1, 1};
  const uint32_t position = 0;
  for (bool interleaved : {false, true}) {
    std::vector<float> q = {1, 2, 3, 4, 5};  // rotary_dim 4 of head_dim 5
    std::vector<float> k = {10, 20, 30, 40, 50};
    QkNormRope({.q = q.data(),
                .k = k.data(),
                .q_stride = 5,
                .k_stride = 5,
                .num_rows = 1,
                .num_heads = 1,
                .num_kv_heads = 1,
                .head_dim = 5,
                .positions = &position,
                .cos = cos.data(),
                .sin = sin.data(),
                .rotary_dim = 4,
                .interleaved = interleaved},
               *stream);
    if (interleaved) {
      EXPECT_THAT(q, ElementsAre(-2, 1, -4, 3, 5));
      EXPECT_THAT(k, ElementsAre(-20, 10, -40, 30, 50));
    } else {
      EXPECT_THAT(q, ElementsAre(-3, -4, 1, 2, 5));
      EXPECT_THAT(k, ElementsAre(-30, -40, 10, 20, 50));
    }
  }
}

// By hand: a quarter turn keeps the rms of (3, 4, 0, 0), 2.5, by which both are divided; positions
// 0 to 2 have floor((p + 1) / 2) = 0, 1, 1, and only queries take the temperature.
TEST_P(ElementwiseTest, UnitNormFollowsTheRotationAndTemperatureTheNorm) {
  auto stream = MakeStream();
  const std::vector<float> cos = {0, 0, 0, 0, 0, 0};
  const std::vector<float> sin = {1, 1, 1, 1, 1, 1};
  const std::vector<uint32_t> positions = {0, 1, 2};
  std::vector<float> q;
  for (uint32_t t = 0; t < 3; ++t) q.insert(q.end(), {3, 4, 0, 0});
  std::vector<float> k = q;
  QkNormRopeParams params{.q = q.data(),
                          .k = k.data(),
                          .q_stride = 4,
                          .k_stride = 4,
                          .num_rows = 3,
                          .num_heads = 1,
                          .num_kv_heads = 1,
                          .head_dim = 4,
                          .norm_eps = 0,
                          .positions = positions.data(),
                          .cos = cos.data(),
                          .sin = sin.data(),
                          .rotary_dim = 4,
                          .interleaved = true,
                          .unit_norm_after = true,
                          .temperature = {.scale = 0.5, .floor_positions = 2}};
  QkNormRope(params, *stream);
  const double factor = 1 + 0.5 * std::log(2.0);
  for (uint32_t t = 0; t < 3; ++t) {
    const double expected = t == 0 ? 1 : factor;
    EXPECT_NEAR(q[4 * t], -1.6 * expected, 1e-6);
    EXPECT_NEAR(q[4 * t + 1], 1.2 * expected, 1e-6);
    EXPECT_NEAR(k[4 * t], -1.6, 1e-6);
    EXPECT_EQ(k[4 * t + 2], 0);
  }
}

TEST_P(ElementwiseTest, EmbeddingGivesRowsOfTheSliceAndZerosOutside) {
  constexpr uint32_t kSlice = 70;
  constexpr uint32_t kWidth = 37;
  constexpr uint32_t kFirst = 100;
  const auto table = RandomFloats(kSlice * kWidth, 1);
  struct alignas(64) Line {
    std::byte bytes[64];
  };
  std::vector<Line> packed(PackedMatrixBytes(WeightFormat::kF32, kSlice, kWidth) / 64 + 1);
  auto* data = reinterpret_cast<std::byte*>(packed.data());
  PackF32(table, kWidth,
          {.destination = data, .n = kSlice, .k = kWidth, .first_row = 0, .num_rows = kSlice});

  const std::vector<uint32_t> ids = {100, 99, 169, 170, 0, 4294967295u, 135};
  std::vector<float> y(ids.size() * kWidth, kPoison);
  auto stream = MakeStream(3);
  Embedding({.table = {.format = WeightFormat::kF32, .n = kSlice, .k = kWidth, .data = data},
             .first_id = kFirst,
             .token_ids = ids.data(),
             .num_rows = static_cast<uint32_t>(ids.size()),
             .y = y.data()},
            *stream);
  for (size_t t = 0; t < ids.size(); ++t) {
    const std::vector<float> row(y.begin() + t * kWidth, y.begin() + (t + 1) * kWidth);
    if (ids[t] >= kFirst && ids[t] < kFirst + kSlice) {
      const auto begin = table.begin() + (ids[t] - kFirst) * kWidth;
      EXPECT_EQ(row, std::vector<float>(begin, begin + kWidth)) << "id " << ids[t];
    } else {
      EXPECT_THAT(row, Each(Eq(0.0f))) << "id " << ids[t];
    }
  }
}

TEST_P(ElementwiseTest, AddAddsAndTouchesNothingElse) {
  for (uint64_t count : {0, 1, 15, 16, 17, 1000, 200001}) {
    auto stream = MakeStream(3);
    const auto x = RandomFloats(count, 1);
    const auto before = RandomFloats(count + 1, 2);
    std::vector<float> y = before;
    Add(y.data(), x.data(), count, *stream);
    for (uint64_t i = 0; i < count; ++i) ASSERT_EQ(y[i], before[i] + x[i]);
    EXPECT_EQ(y[count], before[count]);
  }
}

TEST(AttentionTemperatureTest, GrowsAtMultiplesOfItsFloor) {
  const AttentionTemperature temperature{.scale = 0.1, .floor_positions = 8192};
  EXPECT_EQ(temperature.FactorAt(0), 1.0f);
  EXPECT_EQ(temperature.FactorAt(8190), 1.0f);
  EXPECT_EQ(temperature.FactorAt(8191), static_cast<float>(1 + 0.1 * std::log(2.0)));
  EXPECT_EQ(temperature.FactorAt(16382), temperature.FactorAt(8191));
  // The last position of a context of 10 M tokens.
  EXPECT_FLOAT_EQ(temperature.FactorAt(10485759), static_cast<float>(1 + 0.1 * std::log(1281.0)));
  EXPECT_EQ((AttentionTemperature{}.FactorAt(4294967295u)), 1.0f);
}

TEST(RopeTableTest, HoldsScaledCosinesAndSinesOfPositionTimesFrequency) {
  const std::vector<float> frequencies = {1.0f, 0.25f};
  std::vector<float> cos(200, kPoison);
  std::vector<float> sin(200, kPoison);
  FillRopeTable(frequencies, 0.5f, 100, cos.data(), sin.data());
  EXPECT_EQ(cos[0], 0.5f);
  EXPECT_EQ(sin[1], 0.0f);
  // One rounding, of the final product: the angle is exact in double here.
  EXPECT_NEAR(cos[99 * 2 + 1], 0.5 * std::cos(24.75), kRounding);
  EXPECT_NEAR(sin[99 * 2 + 0], 0.5 * std::sin(99.0), kRounding);
}

// The exponential is good to 2.4e-7 plus 1.2e-7 |x| relative (simd_inl.h), and two roundings
// follow.
double SigmoidTolerance(double x) { return 2.4e-7 + 1.2e-7 * std::abs(x) + 4 * kRounding; }

// As behind an output gate: what stands between the heads' queries is left alone.
TEST_P(ElementwiseTest, QueriesOfHeadsMayStandApart) {
  constexpr uint32_t kHeads = 3;
  constexpr uint32_t kDim = 24;
  constexpr uint32_t kRows = 5;
  auto stream = MakeStream(2);
  auto q = RandomFloats(kRows * kHeads * kDim, 1);
  std::vector<float> apart(2 * q.size(), kPoison);
  for (size_t head = 0; head < q.size() / kDim; ++head) {
    for (uint32_t i = 0; i < kDim; ++i) apart[2 * head * kDim + i] = q[head * kDim + i];
  }
  const auto norm = RandomFloats(kDim, 2);
  const std::vector<uint32_t> positions = {0, 7, 3, 31, 30};
  std::vector<float> cos(32 * 4);
  std::vector<float> sin(cos.size());
  FillRopeTable(std::vector<float>{1, 0.3f, 0.1f, 0.03f}, 1.0f, 32, cos.data(), sin.data());
  QkNormRopeParams params{.q = q.data(),
                          .k = nullptr,
                          .q_stride = kHeads * kDim,
                          .k_stride = 0,
                          .num_rows = kRows,
                          .num_heads = kHeads,
                          .num_kv_heads = 0,
                          .head_dim = kDim,
                          .q_norm = norm.data(),
                          .norm_eps = 1e-6f,
                          .positions = positions.data(),
                          .cos = cos.data(),
                          .sin = sin.data(),
                          .rotary_dim = 8,
                          .interleaved = false,
                          .temperature = {.scale = 0.1, .floor_positions = 8}};
  QkNormRope(params, *stream);
  params.q = apart.data();
  params.q_stride = 2 * kHeads * kDim;
  params.q_head_stride = 2 * kDim;
  QkNormRope(params, *stream);
  for (size_t i = 0; i < apart.size(); ++i) {
    const size_t head = i / (2 * kDim);
    const size_t at = i % (2 * kDim);
    ASSERT_EQ(apart[i], at < kDim ? q[head * kDim + at] : kPoison) << "element " << i;
  }
}

TEST_P(ElementwiseTest, SiluEqualsItsFormula) {
  std::vector<float> x = {0.0f, -0.0f, 1e-30f, 90.0f, -90.0f, 1e30f, -1e30f};
  for (const float value : RandomFloats(200'000, 5, 4.0f)) x.push_back(value);
  for (const uint32_t threads : {1u, 3u}) {
    auto stream = MakeStream(threads);
    std::vector<float> silu = x;
    Silu(silu.data(), silu.size(), *stream);
    for (size_t i = 0; i < x.size(); ++i) {
      const double expected = x[i] / (1 + std::exp(-static_cast<double>(x[i])));
      // Below 2^-126 the exponential is 0.
      ASSERT_NEAR(silu[i], expected, SigmoidTolerance(x[i]) * std::abs(expected) + 1e-36)
          << "x " << x[i];
    }
  }
  const float nan = std::nanf("");
  std::vector<float> poisoned(3, nan);
  auto stream = MakeStream();
  Silu(poisoned.data(), poisoned.size(), *stream);
  for (const float value : poisoned) EXPECT_TRUE(std::isnan(value));
}

// Gates that lie apart, as behind each head's query, and what is between them left alone.
TEST_P(ElementwiseTest, GateHeadsEqualsTheReference) {
  constexpr uint32_t kHeads = 3;
  for (const uint32_t dim : {1u, 16u, 67u}) {
    for (const uint32_t rows : {1u, 700u}) {
      for (const Gate kind : {Gate::kSigmoid, Gate::kSilu}) {
        auto stream = MakeStream(2);
        const uint32_t stride = kHeads * 2 * dim + 5;
        const auto gate = RandomFloats(size_t{rows} * stride, 1, 3.0f);
        auto y = RandomFloats(size_t{rows} * kHeads * dim, 2);
        auto expected = y;
        GateHeadsParams params{.y = expected.data(),
                               .gate = gate.data() + dim,
                               .gate_stride = stride,
                               .gate_head_stride = 2 * dim,
                               .num_rows = rows,
                               .num_heads = kHeads,
                               .head_dim = dim,
                               .kind = kind};
        reference::GateHeads(params);
        params.y = y.data();
        GateHeads(params, *stream);
        for (size_t i = 0; i < y.size(); ++i) {
          ASSERT_NEAR(y[i], expected[i], SigmoidTolerance(12) * std::abs(expected[i]) + 1e-36);
        }
      }
    }
  }
}

TEST_P(ElementwiseTest, AddGatedEqualsTheReference) {
  for (const uint32_t width : {1u, 67u, 576u}) {
    for (const uint32_t rows : {1u, 300u}) {
      auto stream = MakeStream(2);
      const auto x = RandomFloats(size_t{rows} * width, 1);
      const auto gates = RandomFloats(rows, 2, 3.0f);
      auto y = RandomFloats(x.size(), 3);
      const auto before = y;
      auto expected = y;
      AddGatedParams params{.y = expected.data(),
                            .x = x.data(),
                            .gates = gates.data(),
                            .num_rows = rows,
                            .width = width};
      reference::AddGated(params);
      params.y = y.data();
      AddGated(params, *stream);
      for (size_t i = 0; i < y.size(); ++i) {
        const double size = std::abs(before[i]) + std::abs(x[i]);
        ASSERT_NEAR(y[i], expected[i], SigmoidTolerance(12) * size);
      }
    }
  }
}

TEST_P(ElementwiseTest, WeightedSumEqualsTheReferenceInPlaceToo) {
  auto stream = MakeStream(2);
  const auto x = RandomFloats(100'001, 7);
  auto y = RandomFloats(x.size(), 8);
  std::vector<float> expected(x.size());
  WeightedSumParams params{.x = x.data(),
                           .y = y.data(),
                           .z = expected.data(),
                           .count = x.size(),
                           .alpha = 3.5f,
                           .beta = 0.25f};
  reference::WeightedSum(params);
  const auto before = y;
  params.z = y.data();
  WeightedSum(params, *stream);
  for (size_t i = 0; i < x.size(); ++i) {
    // Two products and a sum.
    const double size = std::abs(3.5 * x[i]) + std::abs(0.25 * before[i]);
    ASSERT_NEAR(y[i], expected[i], 3 * kRounding * size);
  }
}

}  // namespace
}  // namespace essor::kernels
