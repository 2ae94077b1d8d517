#include "kernels/linear_attention.h"

#include <cmath>
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/row_test_support.h"
#include "kernels/reference/linear_attention.h"

namespace essor::kernels {
namespace {

class LinearAttentionTest : public EachIsaTest {};
INSTANTIATE_TEST_SUITE_P(Isa, LinearAttentionTest, ::testing::ValuesIn(kAllIsas), IsaTestName);

struct Shape {
  uint32_t num_heads;
  uint32_t num_key_heads;
  uint32_t key_dim;
  uint32_t value_dim;
  bool delta_rule;
};

const Shape kShapes[] = {{3, 3, 8, 8, false},    {2, 2, 128, 128, false}, {4, 2, 16, 24, true},
                         {2, 1, 128, 128, true}, {3, 3, 5, 67, false},    {3, 1, 7, 130, true},
                         {1, 1, 33, 64, true}};

constexpr uint32_t kSlots = 4;

// Random inputs of `num_rows` tokens and the states, poisoned: what lies there before the first
// token of a sequence must not count.
class Case {
 public:
  Case(const Shape& shape, uint32_t num_rows)
      : shape_(shape),
        // Keys of about unit length, as the delta rule has them: longer ones let its state grow.
        q_(RandomFloats(size_t{num_rows} * shape.num_key_heads * shape.key_dim, 1)),
        k_(RandomFloats(q_.size(), 2, 1 / std::sqrt(static_cast<float>(shape.key_dim)))),
        v_(RandomFloats(size_t{num_rows} * shape.num_heads * shape.value_dim, 3)),
        decays_(RandomFloats(size_t{num_rows} * shape.num_heads, 4)),
        write_gates_(RandomFloats(decays_.size(), 5)),
        y_(v_.size(), kPoison),
        states_(size_t{kSlots} * shape.num_heads * shape.key_dim * shape.value_dim, kPoison) {
    for (std::vector<float>* gates : {&decays_, &write_gates_}) {
      for (float& gate : *gates) gate = 1 / (1 + std::exp(-gate));
    }
  }

  LinearAttentionParams Params(std::span<const SequenceRows> sequences) {
    return {.states = states_.data(),
            .q = {q_.data(), shape_.num_key_heads * shape_.key_dim, shape_.key_dim},
            .k = {k_.data(), shape_.num_key_heads * shape_.key_dim, shape_.key_dim},
            .v = {v_.data(), shape_.num_heads * shape_.value_dim, shape_.value_dim},
            .decays = decays_.data(),
            .write_gates = shape_.delta_rule ? write_gates_.data() : nullptr,
            .decay_stride = shape_.num_heads,
            .num_heads = shape_.num_heads,
            .num_key_heads = shape_.num_key_heads,
            .key_dim = shape_.key_dim,
            .value_dim = shape_.value_dim,
            .sequences = sequences,
            .y = y_.data()};
  }

  const std::vector<float>& y() const { return y_; }
  const std::vector<float>& states() const { return states_; }

 private:
  const Shape shape_;
  std::vector<float> q_, k_, v_, decays_, write_gates_, y_, states_;
};

// A sum over key dims rounds once a term, and so does every step of the recurrence; what is kept
// decays, so that about ten steps count. Terms are of the size of 1 / sqrt(Dk) times a normal
// value, so that the sums are of the size of 1.
double Tolerance(const Shape& shape) { return 10 * (shape.key_dim + 8) * kRounding * 4; }

TEST_P(LinearAttentionTest, EqualsTheReference) {
  const std::vector<SequenceRows> sequences = {
      {.first_row = 0, .num_rows = 5, .context_tokens = 0, .slot = 2},
      {.first_row = 5, .num_rows = 1, .context_tokens = 0, .slot = 0},
      {.first_row = 6, .num_rows = 20, .context_tokens = 0, .slot = 3}};
  for (const Shape& shape : kShapes) {
    for (const uint32_t threads : {1u, 3u}) {
      auto stream = MakeStream(threads);
      Case expected(shape, 26);
      Case actual(shape, 26);
      reference::LinearAttention(expected.Params(sequences));
      LinearAttention(actual.Params(sequences), *stream);
      for (size_t i = 0; i < expected.y().size(); ++i) {
        ASSERT_NEAR(actual.y()[i], expected.y()[i],
                    Tolerance(shape) * (1 + std::abs(expected.y()[i])))
            << "dims " << shape.key_dim << " and " << shape.value_dim << ", element " << i;
      }
      for (size_t i = 0; i < expected.states().size(); ++i) {
        ASSERT_NEAR(actual.states()[i], expected.states()[i],
                    Tolerance(shape) * (1 + std::abs(expected.states()[i])));
      }
    }
  }
}

// However a prompt is cut, whatever else is in the batch and however many threads there are.
TEST_P(LinearAttentionTest, EveryCutGivesTheSameBits) {
  constexpr uint32_t kRows = 23;
  for (const Shape& shape : kShapes) {
    Case whole(shape, kRows);
    auto stream = MakeStream(2);
    const SequenceRows all = {.first_row = 0, .num_rows = kRows, .context_tokens = 0, .slot = 1};
    LinearAttention(whole.Params({&all, 1}), *stream);
    for (const uint32_t chunk : {1u, 4u, 22u}) {
      Case cut(shape, kRows);
      auto other_stream = MakeStream(chunk);
      for (uint32_t first = 0; first < kRows; first += chunk) {
        const SequenceRows part = {.first_row = first,
                                   .num_rows = std::min(chunk, kRows - first),
                                   .context_tokens = first,
                                   .slot = 1};
        LinearAttention(cut.Params({&part, 1}), *other_stream);
      }
      EXPECT_EQ(cut.y(), whole.y()) << "chunks of " << chunk;
      EXPECT_EQ(cut.states(), whole.states()) << "chunks of " << chunk;
    }
  }
}

TEST_P(LinearAttentionTest, LeavesTheStatesOfOthersAlone) {
  const Shape shape = kShapes[1];
  Case one(shape, 3);
  auto stream = MakeStream();
  const SequenceRows rows = {.first_row = 0, .num_rows = 3, .context_tokens = 0, .slot = 1};
  LinearAttention(one.Params({&rows, 1}), *stream);
  const size_t of_slot = one.states().size() / kSlots;
  for (size_t i = 0; i < one.states().size(); ++i) {
    if (i / of_slot == 1) {
      ASSERT_NE(one.states()[i], kPoison);
    } else {
      ASSERT_EQ(one.states()[i], kPoison);
    }
  }
}

// With decays of 1/2 and keys that pick one row each, the state can be followed by hand.
TEST_P(LinearAttentionTest, RecursAsWritten) {
  auto stream = MakeStream();
  std::vector<float> states(4, kPoison);
  const std::vector<float> k = {1, 0, 0, 1};  // tokens pick rows 0 and 1
  const std::vector<float> q = {1, 1, 1, 1};
  const std::vector<float> v = {8, 16, 2, 4};
  const std::vector<float> decays = {0.5f};
  std::vector<float> y(4, kPoison);
  const SequenceRows rows = {.first_row = 0, .num_rows = 2, .context_tokens = 0};
  LinearAttention({.states = states.data(),
                   .q = {q.data(), 2, 2},
                   .k = {k.data(), 2, 2},
                   .v = {v.data(), 2, 2},
                   .decays = decays.data(),
                   .num_heads = 1,
                   .num_key_heads = 1,
                   .key_dim = 2,
                   .value_dim = 2,
                   .sequences = {&rows, 1},
                   .y = y.data()},
                  *stream);
  EXPECT_EQ(states, (std::vector<float>{4, 8, 2, 4}));
  EXPECT_EQ(y, (std::vector<float>{8, 16, 6, 12}));
}

struct ConvolutionShape {
  uint32_t num_heads;
  uint32_t dim;
  uint32_t taps;
};

const ConvolutionShape kConvolutions[] = {
    {2, 8, 4}, {3, 21, 4}, {1, 130, 3}, {2, 16, 1}, {1, 5, 8}};

// Inputs behind each other with a gap between heads, and states wider than the channels.
class Convolution {
 public:
  Convolution(const ConvolutionShape& shape, uint32_t num_rows)
      : shape_(shape),
        channels_(shape.num_heads * shape.dim),
        x_(RandomFloats(size_t{num_rows} * 2 * channels_, 1)),
        filters_(RandomFloats(size_t{channels_} * shape.taps, 2)),
        y_(size_t{num_rows} * (channels_ + 3), kPoison),
        states_(size_t{kSlots} * (shape.taps - 1) * (channels_ + 5), kPoison) {}

  CausalConvolutionParams Params(std::span<const SequenceRows> sequences) {
    return {.states = states_.data(),
            .state_width = channels_ + 5,
            .x = {x_.data(), 2 * channels_, 2 * shape_.dim},
            .filters = filters_.data(),
            .taps = shape_.taps,
            .num_heads = shape_.num_heads,
            .dim = shape_.dim,
            .sequences = sequences,
            .y = y_.data(),
            .y_stride = channels_ + 3};
  }

  const std::vector<float>& y() const { return y_; }
  const std::vector<float>& states() const { return states_; }

 private:
  const ConvolutionShape shape_;
  const uint32_t channels_;
  std::vector<float> x_, filters_, y_, states_;
};

TEST_P(LinearAttentionTest, ConvolutionEqualsTheReference) {
  const std::vector<SequenceRows> sequences = {
      {.first_row = 0, .num_rows = 9, .context_tokens = 0, .slot = 3},
      {.first_row = 9, .num_rows = 1, .context_tokens = 0, .slot = 1},
      {.first_row = 10, .num_rows = 2, .context_tokens = 0, .slot = 0}};
  for (const ConvolutionShape& shape : kConvolutions) {
    auto stream = MakeStream(2);
    Convolution expected(shape, 12);
    Convolution actual(shape, 12);
    reference::CausalConvolution(expected.Params(sequences));
    CausalConvolution(actual.Params(sequences), *stream);
    EXPECT_EQ(actual.states(), expected.states()) << "inputs are kept as they are";
    for (size_t i = 0; i < expected.y().size(); ++i) {
      // Up to 8 products of normal values, and a sigmoid that is good to 1e-6.
      ASSERT_NEAR(actual.y()[i], expected.y()[i], 3e-6 * (1 + std::abs(expected.y()[i])))
          << "taps " << shape.taps << " element " << i;
    }
  }
}

// Enough work to be shared among threads: the same bits as on one.
TEST_P(LinearAttentionTest, ThreadsDoNotChangeAConvolution) {
  constexpr uint32_t kRows = 150;
  const ConvolutionShape shape{.num_heads = 4, .dim = 130, .taps = 4};
  const SequenceRows all = {.first_row = 0, .num_rows = kRows, .context_tokens = 0, .slot = 1};
  Convolution one(shape, kRows);
  CausalConvolution(one.Params({&all, 1}), *MakeStream(1));
  Convolution many(shape, kRows);
  CausalConvolution(many.Params({&all, 1}), *MakeStream(3));
  EXPECT_EQ(many.y(), one.y());
  EXPECT_EQ(many.states(), one.states());
}

TEST_P(LinearAttentionTest, EveryCutOfAConvolutionGivesTheSameBits) {
  constexpr uint32_t kRows = 19;
  for (const ConvolutionShape& shape : kConvolutions) {
    Convolution whole(shape, kRows);
    auto stream = MakeStream(3);
    const SequenceRows all = {.first_row = 0, .num_rows = kRows, .context_tokens = 0, .slot = 2};
    CausalConvolution(whole.Params({&all, 1}), *stream);
    for (const uint32_t chunk : {1u, 2u, 5u, 18u}) {
      Convolution cut(shape, kRows);
      for (uint32_t first = 0; first < kRows; first += chunk) {
        const SequenceRows part = {.first_row = first,
                                   .num_rows = std::min(chunk, kRows - first),
                                   .context_tokens = first,
                                   .slot = 2};
        CausalConvolution(cut.Params({&part, 1}), *stream);
      }
      EXPECT_EQ(cut.y(), whole.y()) << "taps " << shape.taps << " chunks of " << chunk;
      EXPECT_EQ(cut.states(), whole.states()) << "taps " << shape.taps << " chunks of " << chunk;
    }
  }
}

// One channel by hand: filter (1, 2), inputs 3, 5.
TEST_P(LinearAttentionTest, TheLastTapIsTheOwnTokens) {
  auto stream = MakeStream();
  std::vector<float> state = {kPoison};
  const std::vector<float> x = {3, 5};
  const std::vector<float> filters = {1, 2};
  std::vector<float> y(2, kPoison);
  const SequenceRows rows = {.first_row = 0, .num_rows = 2, .context_tokens = 0};
  CausalConvolution({.states = state.data(),
                     .state_width = 1,
                     .x = {x.data(), 1, 1},
                     .filters = filters.data(),
                     .taps = 2,
                     .num_heads = 1,
                     .dim = 1,
                     .sequences = {&rows, 1},
                     .y = y.data(),
                     .y_stride = 1},
                    *stream);
  EXPECT_NEAR(y[0], 6 / (1 + std::exp(-6.0)), 1e-5);
  EXPECT_NEAR(y[1], 13 / (1 + std::exp(-13.0)), 1e-5);
  EXPECT_EQ(state[0], 5);
}

// Two key heads of two value heads: per key head its b, b, a, a.
TEST_P(LinearAttentionTest, DeltaGatesFollowTheirFormula) {
  auto stream = MakeStream();
  const std::vector<float> gates = {0.5f, -1, 2, 3, 4, 100, -50, 50};
  const std::vector<float> rates = {0, -1, 1, 0};
  const std::vector<float> biases = {0.25f, -3, 0, 0};
  std::vector<float> decays(4, kPoison);
  std::vector<float> write_gates(4, kPoison);
  DeltaGates({.gates = gates.data(),
              .rates = rates.data(),
              .biases = biases.data(),
              .num_rows = 1,
              .num_heads = 4,
              .num_key_heads = 2,
              .decays = decays.data(),
              .write_gates = write_gates.data()},
             *stream);
  EXPECT_NEAR(decays[0], std::exp(-std::log(1 + std::exp(2.25))), 1e-6);
  EXPECT_NEAR(decays[1], std::exp(-std::exp(-1.0) * std::log(2.0)), 1e-6);
  EXPECT_NEAR(decays[2], 1, 1e-6) << "ln(1 + e^-50) is 0";
  EXPECT_NEAR(decays[3], 0, 1e-6) << "and no exponential overflows";
  EXPECT_NEAR(write_gates[0], 1 / (1 + std::exp(-0.5)), 1e-6);
  EXPECT_NEAR(write_gates[1], 1 / (1 + std::exp(1.0)), 1e-6);
  EXPECT_NEAR(write_gates[3], 1, 1e-6);
}

}  // namespace
}  // namespace essor::kernels
