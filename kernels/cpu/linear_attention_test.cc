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

}  // namespace
}  // namespace essor::kernels
