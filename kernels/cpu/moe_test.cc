#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <tuple>

#include "gtest/gtest.h"
#include "kernels/cpu/linear_test_support.h"

namespace essor::kernels {
namespace {

using testing::MakeStream;
using testing::ProductTolerance;
using testing::RandomFloats;
using testing::TestMatrix;

constexpr float kPoison = -12345.0f;

struct Routing {
  std::vector<uint32_t> ids;   // [T, k]
  std::vector<float> weights;  // [T, k]
};

// k different experts for each token, out of num_experts.
Routing RandomRouting(uint32_t tokens, uint32_t top_k, uint32_t num_experts, uint32_t seed) {
  std::mt19937 engine(seed);
  Routing routing;
  std::vector<uint32_t> experts(num_experts);
  std::iota(experts.begin(), experts.end(), 0u);
  for (uint32_t t = 0; t < tokens; ++t) {
    for (uint32_t j = 0; j < top_k; ++j) {
      std::swap(experts[j], experts[j + engine() % (num_experts - j)]);
      routing.ids.push_back(experts[j]);
      routing.weights.push_back(static_cast<float>(1 + engine() % 100) / 100);
    }
  }
  return routing;
}

struct Ffn {
  TestMatrix gate;
  TestMatrix up;
  TestMatrix down;
  std::vector<float> gate_bias;  // empty: none
  std::vector<float> up_bias;
  std::vector<float> down_bias;

  GatedFfnWeights view() const {
    const auto pointer = [](const std::vector<float>& bias) {
      return bias.empty() ? nullptr : bias.data();
    };
    return {gate.view(),        up.view(),        down.view(),
            pointer(gate_bias), pointer(up_bias), pointer(down_bias)};
  }
};

Ffn RandomFfn(WeightFormat format, uint32_t hidden, uint32_t intermediate, uint32_t seed) {
  return {TestMatrix::Random(format, intermediate, hidden, seed),
          TestMatrix::Random(format, intermediate, hidden, seed + 1),
          TestMatrix::Random(format, hidden, intermediate, seed + 2),
          {},
          {},
          {}};
}

Ffn RandomFfnWithBiases(WeightFormat format, uint32_t hidden, uint32_t intermediate,
                        uint32_t seed) {
  Ffn ffn = RandomFfn(format, hidden, intermediate, seed);
  ffn.gate_bias = RandomFloats(intermediate, seed + 3);
  ffn.up_bias = RandomFloats(intermediate, seed + 4);
  ffn.down_bias = RandomFloats(hidden, seed + 5);
  return ffn;
}

// Low enough that many of the random gates and ups are clamped.
constexpr GatedActivation kClamped = {.limit = 1.5f, .alpha = 1.702f};

TestMatrix Identity(uint32_t n) {
  std::vector<float> rows(size_t{n} * n);
  for (uint32_t i = 0; i < n; ++i) rows[size_t{i} * n + i] = 1;
  TestMatrix matrix(WeightFormat::kF32, n, n);
  PackF32(rows, n, matrix.target());
  return matrix;
}

class MoeTest : public ::testing::TestWithParam<std::tuple<CpuIsa, WeightFormat>> {
 protected:
  void SetUp() override {
    if (!CpuIsaAvailable(isa())) {
      GTEST_SKIP() << "this processor has no " << CpuIsaName(isa());
    }
  }
  CpuIsa isa() const { return std::get<0>(GetParam()); }
  WeightFormat format() const { return std::get<1>(GetParam()); }

  std::vector<float> Linear(std::span<const float> x, uint32_t rows, const PackedMatrix& w,
                            bool split_x = false) const {
    std::vector<float> y(size_t{rows} * w.n, kPoison);
    const LinearOutput output{.weight = w, .y = y.data(), .y_stride = w.n};
    kernels::Linear({.x = x.data(),
                     .x_stride = w.k,
                     .num_rows = rows,
                     .outputs = {&output, 1},
                     .split_x = split_x},
                    *MakeStream(isa()));
    return y;
  }

  std::vector<float> Gated(std::span<const float> x, uint32_t rows, const GatedFfnWeights& weights,
                           uint32_t num_threads = 1, const GatedActivation& activation = {}) const {
    std::vector<float> y(size_t{rows} * weights.down.n, kPoison);
    GatedFfn({.x = x.data(),
              .num_rows = rows,
              .weights = weights,
              .activation = activation,
              .y = y.data()},
             *MakeStream(isa(), num_threads));
    return y;
  }

  std::vector<float> Moe(std::span<const float> x, const Routing& routing, uint32_t top_k,
                         std::span<const GatedFfnWeights> experts, uint32_t first_expert = 0,
                         uint32_t num_threads = 1, bool weigh_input = false,
                         const GatedActivation& activation = {}) const {
    const auto rows = static_cast<uint32_t>(routing.ids.size() / top_k);
    std::vector<float> y(size_t{rows} * experts[0].down.n, kPoison);
    MoeFfn({.x = x.data(),
            .num_rows = rows,
            .top_k = top_k,
            .expert_ids = routing.ids.data(),
            .expert_weights = routing.weights.data(),
            .weigh_input = weigh_input,
            .first_expert = first_expert,
            .experts = experts,
            .activation = activation,
            .y = y.data()},
           *MakeStream(isa(), num_threads));
    return y;
  }
};

// With the identity as down projection the hidden activations themselves come out. silu's slope is
// below 1.1 and |silu(g)| <= |g|, so the errors of gate and up carry over as the sum below; 16
// units in the last place are for exp, the division and the product.
TEST_P(MoeTest, HiddenIsSiluGateTimesUp) {
  constexpr uint32_t kRows = 9;
  constexpr uint32_t kK = 96;
  constexpr uint32_t kI = 70;
  const TestMatrix gate = TestMatrix::Random(format(), kI, kK, 1);
  const TestMatrix up = TestMatrix::Random(format(), kI, kK, 2);
  const TestMatrix down = Identity(kI);
  const std::vector<float> x = RandomFloats(kRows * kK, 3, 4.0f);
  const std::vector<float> hidden = Gated(x, kRows, {gate.view(), up.view(), down.view()});
  const std::vector<float> g = Linear(x, kRows, gate.view());
  const std::vector<float> u = Linear(x, kRows, up.view());
  for (uint32_t i = 0; i < hidden.size(); ++i) {
    const double silu = static_cast<double>(g[i]) / (1 + std::exp(-static_cast<double>(g[i])));
    const double expected = silu * static_cast<double>(u[i]);
    ASSERT_NEAR(hidden[i], expected, std::abs(expected) * 16 * 0x1p-23 + 1e-35)
        << g[i] << " " << u[i];
  }
}

// The clamped form with biases: its slopes over gate and up are below 1.2 times limit + 1, and the
// sums of products and biases are rounded once more.
TEST_P(MoeTest, HiddenIsTheClampedActivation) {
  constexpr uint32_t kRows = 9;
  constexpr uint32_t kK = 96;
  constexpr uint32_t kI = 70;
  const Ffn ffn = {TestMatrix::Random(format(), kI, kK, 30),
                   TestMatrix::Random(format(), kI, kK, 31),
                   Identity(kI),
                   RandomFloats(kI, 32),
                   RandomFloats(kI, 33),
                   {}};
  const std::vector<float> x = RandomFloats(kRows * kK, 34, 2.0f);
  const std::vector<float> hidden = Gated(x, kRows, ffn.view(), 1, kClamped);
  const std::vector<float> g = Linear(x, kRows, ffn.gate.view());
  const std::vector<float> u = Linear(x, kRows, ffn.up.view());
  uint32_t clamped = 0;
  for (uint32_t i = 0; i < hidden.size(); ++i) {
    const double gate = std::min<double>(g[i] + ffn.gate_bias[i % kI], kClamped.limit);
    const double whole_up = u[i] + ffn.up_bias[i % kI];
    const double up = std::clamp<double>(whole_up, -kClamped.limit, kClamped.limit);
    if (gate == kClamped.limit || up != whole_up) ++clamped;
    const double expected = gate / (1 + std::exp(-1.702 * gate)) * (up + 1);
    ASSERT_NEAR(hidden[i], expected, (std::abs(expected) + 1) * 32 * 0x1p-23) << gate << " " << up;
  }
  EXPECT_GT(clamped, 20u);
  EXPECT_LT(clamped, hidden.size() - 20);
}

TEST_P(MoeTest, ClampedActivationPassesNanOn) {
  const std::vector<float> row = {1};
  TestMatrix one(WeightFormat::kF32, 1, 1);
  PackF32(row, 1, one.target());
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> x = {nan};
  EXPECT_TRUE(std::isnan(Gated(x, 1, {one.view(), one.view(), one.view()}, 1, kClamped)[0]));
}

TEST_P(MoeTest, SiluOfExtremes) {
  // One column: gate = x, up = 1.
  constexpr uint32_t kK = 2;
  const std::vector<float> gate_row = {1, 0};
  const std::vector<float> up_row = {0, 1};
  TestMatrix gate(WeightFormat::kF32, 1, kK);
  TestMatrix up(WeightFormat::kF32, 1, kK);
  PackF32(gate_row, kK, gate.target());
  PackF32(up_row, kK, up.target());
  const TestMatrix down = Identity(1);
  for (const float value :
       {0.0f, -0.0f, 1e-30f, 20.0f, -20.0f, 88.0f, -86.0f, -100.0f, -1e30f, 1e30f}) {
    const std::vector<float> x = {value, 1};
    const double exact = value < -700 ? 0 : value / (1 + std::exp(-static_cast<double>(value)));
    const float y = Gated(x, 1, {gate.view(), up.view(), down.view()})[0];
    // Below -87 the polynomial's argument is clamped: |y| <= |x| e^-87.
    ASSERT_NEAR(y, exact, std::abs(exact) * 16 * 0x1p-23 + std::abs(value) * 1.7e-38) << value;
  }
}

// The down product of exactly those hidden activations, bit by bit, as Linear does it.
TEST_P(MoeTest, GatedFfnIsLinearOfHidden) {
  constexpr uint32_t kRows = 20;
  constexpr uint32_t kK = 64;
  constexpr uint32_t kI = 96;
  const Ffn ffn = RandomFfn(format(), kK, kI, 4);
  const TestMatrix identity = Identity(kI);
  const std::vector<float> x = RandomFloats(kRows * kK, 5);
  const std::vector<float> hidden =
      Gated(x, kRows, {ffn.gate.view(), ffn.up.view(), identity.view()});
  EXPECT_EQ(Gated(x, kRows, ffn.view()), Linear(hidden, kRows, ffn.down.view(), /*split_x=*/true));
}

TEST_P(MoeTest, OddIntermediateSizes) {
  if (testing::InBlocks(format())) return;
  constexpr uint32_t kRows = 5;
  constexpr uint32_t kK = 33;
  constexpr uint32_t kI = 45;
  const Ffn ffn = RandomFfn(format(), kK, kI, 6);
  const TestMatrix identity = Identity(kI);
  const std::vector<float> x = RandomFloats(kRows * kK, 7);
  const std::vector<float> hidden =
      Gated(x, kRows, {ffn.gate.view(), ffn.up.view(), identity.view()});
  EXPECT_EQ(Gated(x, kRows, ffn.view()), Linear(hidden, kRows, ffn.down.view(), /*split_x=*/true));
}

// Many rows take the long down product in chunks of columns, one row does not: the same bits.
TEST_P(MoeTest, LongRowsDependOnlyOnThemselves) {
  constexpr uint32_t kRows = 15;
  constexpr uint32_t kK = 32;
  constexpr uint32_t kI = 13'440;  // beyond a chunk of every format
  const Ffn ffn = RandomFfn(format(), kK, kI, 20);
  const std::vector<float> x = RandomFloats(kRows * kK, 21);
  const std::vector<float> y = Gated(x, kRows, ffn.view(), 2);
  for (uint32_t t = 0; t < kRows; ++t) {
    const std::vector<float> alone = Gated(std::span(x).subspan(t * kK, kK), 1, ffn.view());
    ASSERT_EQ(std::memcmp(&y[t * kK], alone.data(), kK * sizeof(float)), 0) << t;
  }
}

class ExpertsTest : public MoeTest {
 protected:
  static constexpr uint32_t kExperts = 6;
  static constexpr uint32_t kTopK = 3;
  static constexpr uint32_t kHidden = 64;
  static constexpr uint32_t kIntermediate = 96;

  void SetUp() override {
    MoeTest::SetUp();
    for (uint32_t e = 0; e < kExperts; ++e) {
      ffns_.push_back(RandomFfn(format(), kHidden, kIntermediate, 100 + 3 * e));
      experts_.push_back(ffns_.back().view());
    }
  }

  std::vector<Ffn> ffns_;
  std::vector<GatedFfnWeights> experts_;
};

// y = sum over j of weight * ffn(x), each product and sum rounded once.
TEST_P(ExpertsTest, SumsExpertsInRouterOrder) {
  constexpr uint32_t kRows = 40;
  const Routing routing = RandomRouting(kRows, kTopK, kExperts, 8);
  const std::vector<float> x = RandomFloats(kRows * kHidden, 9);
  const std::vector<float> y = Moe(x, routing, kTopK, experts_, 0, 2);
  std::vector<std::vector<float>> outputs;
  for (const GatedFfnWeights& expert : experts_) outputs.push_back(Gated(x, kRows, expert));
  for (uint32_t i = 0; i < y.size(); ++i) {
    double sum = 0;
    double magnitude = 0;
    for (uint32_t j = 0; j < kTopK; ++j) {
      const uint32_t place = i / kHidden * kTopK + j;
      const double term = static_cast<double>(routing.weights[place]) *
                          static_cast<double>(outputs[routing.ids[place]][i]);
      sum += term;
      magnitude += std::abs(term);
    }
    ASSERT_NEAR(y[i], sum, magnitude * 2 * kTopK * 0x1p-24) << i;
  }
}

// A token gets w (ffn(x) + bias) of each expert, whose biases belong to no other.
TEST_P(ExpertsTest, WeighsBiasesWithTheirExperts) {
  constexpr uint32_t kRows = 17;
  std::vector<Ffn> biased;
  std::vector<GatedFfnWeights> with;
  for (uint32_t e = 0; e < kExperts; ++e) {
    biased.push_back(RandomFfnWithBiases(format(), kHidden, kIntermediate, 200 + 6 * e));
    with.push_back(biased.back().view());
  }
  std::vector<GatedFfnWeights> without = with;
  for (GatedFfnWeights& expert : without) expert.down_bias = nullptr;
  const Routing routing = RandomRouting(kRows, kTopK, kExperts, 22);
  const std::vector<float> x = RandomFloats(kRows * kHidden, 23);
  const std::vector<float> y = Moe(x, routing, kTopK, with, 0, 2, false, kClamped);
  const std::vector<float> plain = Moe(x, routing, kTopK, without, 0, 2, false, kClamped);
  for (uint32_t i = 0; i < y.size(); ++i) {
    double bias = 0;
    double magnitude = std::abs(plain[i]) + 1;
    for (uint32_t j = 0; j < kTopK; ++j) {
      const uint32_t place = i / kHidden * kTopK + j;
      const double term = double{routing.weights[place]} *
                          double{biased[routing.ids[place]].down_bias[i % kHidden]};
      bias += term;
      magnitude += std::abs(term);
    }
    ASSERT_NEAR(y[i], plain[i] + bias, magnitude * 8 * kTopK * 0x1p-24) << i;
  }
  for (uint32_t t = 0; t < kRows; ++t) {
    const Routing own = {{&routing.ids[t * kTopK], &routing.ids[(t + 1) * kTopK]},
                         {&routing.weights[t * kTopK], &routing.weights[(t + 1) * kTopK]}};
    const std::vector<float> alone =
        Moe(std::span(x).subspan(t * kHidden, kHidden), own, kTopK, with, 0, 1, false, kClamped);
    ASSERT_EQ(std::memcmp(&y[t * kHidden], alone.data(), kHidden * sizeof(float)), 0) << t;
  }
}

// The same token gives the same bits alone, in any company, in any order, on any number of threads.
TEST_P(ExpertsTest, TokensDependOnlyOnThemselves) {
  constexpr uint32_t kRows = 130;
  const Routing routing = RandomRouting(kRows, kTopK, kExperts, 10);
  const std::vector<float> x = RandomFloats(kRows * kHidden, 11);
  const auto select = [&](const std::vector<uint32_t>& tokens, uint32_t num_threads) {
    Routing chosen;
    std::vector<float> rows;
    for (const uint32_t t : tokens) {
      rows.insert(rows.end(), x.begin() + t * kHidden, x.begin() + (t + 1) * kHidden);
      for (uint32_t j = t * kTopK; j < (t + 1) * kTopK; ++j) {
        chosen.ids.push_back(routing.ids[j]);
        chosen.weights.push_back(routing.weights[j]);
      }
    }
    return Moe(rows, chosen, kTopK, experts_, 0, num_threads);
  };
  std::vector<std::vector<float>> alone;
  std::vector<uint32_t> tokens(kRows);
  for (uint32_t t = 0; t < kRows; ++t) {
    tokens[t] = t;
    alone.push_back(select({t}, 1));
  }
  std::mt19937 engine(12);
  for (const uint32_t threads : {1u, 2u, 3u}) {
    for (const uint32_t count : {1u, 2u, 7u, 17u, 64u, 130u}) {
      for (uint32_t t = kRows - 1; t > 0; --t) std::swap(tokens[t], tokens[engine() % (t + 1)]);
      const std::vector<uint32_t> chosen(tokens.begin(), tokens.begin() + count);
      const std::vector<float> y = select(chosen, threads);
      for (uint32_t i = 0; i < count; ++i) {
        ASSERT_EQ(std::memcmp(&y[i * kHidden], alone[chosen[i]].data(), kHidden * sizeof(float)), 0)
            << "token " << chosen[i] << " among " << count << ", " << threads << " threads";
      }
    }
  }
}

// The weight goes into the expert: the same bits as that FFN of the weighted row, alone and among
// others, for one and for several experts of a token.
TEST_P(ExpertsTest, WeighsTheInputWhereAsked) {
  constexpr uint32_t kRows = 40;
  for (const uint32_t top_k : {1u, 2u}) {
    const Routing routing = RandomRouting(kRows, top_k, kExperts, 18);
    const std::vector<float> x = RandomFloats(kRows * kHidden, 19);
    const std::vector<float> y = Moe(x, routing, top_k, experts_, 0, 2, /*weigh_input=*/true);
    for (uint32_t t = 0; t < kRows; ++t) {
      std::vector<float> expected(kHidden);
      for (uint32_t place = t * top_k; place < (t + 1) * top_k; ++place) {
        std::vector<float> row(x.begin() + t * kHidden, x.begin() + (t + 1) * kHidden);
        for (float& value : row) value *= routing.weights[place];
        // Through an MoE, not GatedFfn: with one expert, which it chooses with weight 1.
        const Routing one{.ids = {routing.ids[place]}, .weights = {1}};
        const std::vector<float> part = Moe(row, one, 1, experts_);
        for (uint32_t i = 0; i < kHidden; ++i) expected[i] += part[i];
      }
      const std::vector<float> together(y.begin() + t * kHidden, y.begin() + (t + 1) * kHidden);
      const Routing own{
          .ids = {routing.ids.begin() + t * top_k, routing.ids.begin() + (t + 1) * top_k},
          .weights = {routing.weights.begin() + t * top_k,
                      routing.weights.begin() + (t + 1) * top_k}};
      ASSERT_EQ(Moe(std::span(x).subspan(t * kHidden, kHidden), own, top_k, experts_, 0, 1, true),
                together);
      for (uint32_t i = 0; i < kHidden; ++i) {
        // One expert: the same bits. Two: their sum is rounded once more.
        const double tolerance = top_k == 1 ? 0 : (std::abs(expected[i]) + 1) * 8 * 0x1p-24;
        ASSERT_NEAR(together[i], expected[i], tolerance) << t << " " << i;
      }
    }
  }
}

// Two halves of the experts, as two ranks hold them, add up; a token without experts gets zeros.
TEST_P(ExpertsTest, AbsentExpertsAreLeftOut) {
  constexpr uint32_t kRows = 12;
  constexpr uint32_t kFirst = 1000;  // experts are numbered from here, so ids below are absent too
  Routing routing = RandomRouting(kRows, kTopK, kExperts, 13);
  for (uint32_t& id : routing.ids) id += kFirst;
  for (uint32_t j = 0; j < kTopK; ++j) routing.ids[5 * kTopK + j] = j;  // nobody's
  const std::vector<float> x = RandomFloats(kRows * kHidden, 14);
  const std::vector<float> all = Moe(x, routing, kTopK, experts_, kFirst);
  const auto halves = std::span<const GatedFfnWeights>(experts_);
  const std::vector<float> low = Moe(x, routing, kTopK, halves.first(2), kFirst);
  const std::vector<float> high = Moe(x, routing, kTopK, halves.subspan(2), kFirst + 2);
  for (uint32_t i = 0; i < all.size(); ++i) {
    if (i / kHidden == 5) {
      ASSERT_EQ(all[i], 0) << i;
    }
    const float magnitude = std::abs(low[i]) + std::abs(high[i]);
    ASSERT_NEAR(all[i], low[i] + high[i], magnitude * 4 * kTopK * 0x1p-24f) << i;
  }
}

TEST_P(ExpertsTest, BrokenTokensStayAlone) {
  constexpr uint32_t kRows = 8;
  const Routing routing = RandomRouting(kRows, kTopK, kExperts, 15);
  const std::vector<float> clean = RandomFloats(kRows * kHidden, 16);
  std::vector<float> x = clean;
  x[3 * kHidden] = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> y = Moe(x, routing, kTopK, experts_, 0, 2);
  const std::vector<float> expected = Moe(clean, routing, kTopK, experts_);
  for (uint32_t i = 0; i < y.size(); ++i) {
    if (i / kHidden == 3) {
      ASSERT_TRUE(std::isnan(y[i])) << i;
    } else {
      ASSERT_EQ(y[i], expected[i]) << i;
    }
  }
}

TEST_P(ExpertsTest, NoTokensDoNothing) {
  EXPECT_TRUE(Moe({}, {}, kTopK, experts_).empty());
  EXPECT_TRUE(Gated({}, 0, experts_[0]).empty());
}

TEST_P(ExpertsTest, WorkspaceIsAsPlanned) {
  if (isa() == CpuIsa::kReference) return;  // keeps vectors of its own
  const auto stream = MakeStream(isa(), 2);
  testing::MeasuringStream measuring(*stream);
  for (const uint32_t rows : {1u, 9u, 50u}) {
    const Routing routing = RandomRouting(rows, kTopK, kExperts, 17);
    const std::vector<float> x = RandomFloats(rows * kHidden, 18);
    std::vector<float> y(rows * kHidden);
    MoeFfn({.x = x.data(),
            .num_rows = rows,
            .top_k = kTopK,
            .expert_ids = routing.ids.data(),
            .expert_weights = routing.weights.data(),
            .first_expert = 0,
            .experts = experts_,
            .y = y.data()},
           measuring);
    EXPECT_GT(measuring.largest(), 0u);
    EXPECT_LE(measuring.largest(), FfnWorkspaceBytes({.gate_up_format = format(),
                                                      .down_format = format(),
                                                      .hidden = kHidden,
                                                      .intermediate = kIntermediate,
                                                      .num_experts = kExperts,
                                                      .top_k = kTopK},
                                                     rows, 2));
  }
}

const auto kAllKernels = ::testing::Combine(
    ::testing::Values(CpuIsa::kReference, CpuIsa::kPortable, CpuIsa::kAvx2, CpuIsa::kAvx512),
    ::testing::ValuesIn(testing::kAllFormats));

std::string KernelName(const ::testing::TestParamInfo<std::tuple<CpuIsa, WeightFormat>>& info) {
  return std::string(CpuIsaName(std::get<0>(info.param))) + "_" +
         testing::FormatName(std::get<1>(info.param));
}

INSTANTIATE_TEST_SUITE_P(All, MoeTest, kAllKernels, KernelName);
INSTANTIATE_TEST_SUITE_P(All, ExpertsTest, kAllKernels, KernelName);

}  // namespace
}  // namespace essor::kernels
