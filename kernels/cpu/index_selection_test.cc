#include "kernels/index_selection.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/row_test_support.h"
#include "kernels/reference/index_selection.h"

namespace essor::kernels {
namespace {

using ::testing::ElementsAre;

constexpr uint32_t kUntouched = 0xdeadbeef;

struct Shape {
  uint32_t heads = 3;
  uint32_t dim = 16;
  uint32_t top_k = 8;
  uint32_t tokens = 100;
  uint32_t num_sequences = 1;
  uint32_t block_tokens = 16;
  bool fp32 = true;
};

// Sequences whose index keys lie in scattered blocks, NaN where nothing was written; results are
// positions.
class IndexBench {
 public:
  using Draw = std::function<std::vector<float>(size_t count, uint32_t seed)>;

  IndexBench(const Shape& shape, const Draw& draw) : shape_(shape) {
    const uint32_t per_sequence = shape.tokens / shape.block_tokens + 1;
    const uint32_t num_blocks = per_sequence * shape.num_sequences + 2;
    std::vector<uint32_t> blocks(num_blocks);
    for (uint32_t b = 0; b < num_blocks; ++b) blocks[b] = b;
    std::shuffle(blocks.begin(), blocks.end(), std::mt19937(shape.block_tokens));
    const size_t elements = size_t{num_blocks} * shape.block_tokens * shape.dim;
    fp32_.assign(elements, std::numeric_limits<float>::quiet_NaN());
    bf16_.assign(elements, 0x7fc0);  // NaN
    cache_ = {.data = shape.fp32 ? static_cast<void*>(fp32_.data()) : bf16_.data(),
              .type = shape.fp32 ? KvType::kFloat32 : KvType::kBFloat16,
              .num_blocks = num_blocks,
              .block_tokens = shape.block_tokens,
              .dim = shape.dim};
    for (uint32_t s = 0; s < shape.num_sequences; ++s) {
      tables_.emplace_back(blocks.begin() + s * per_sequence,
                           blocks.begin() + (s + 1) * per_sequence);
      q_.push_back(draw(size_t{shape.tokens} * shape.heads * shape.dim, 10 + s));
      weights_.push_back(draw(size_t{shape.tokens} * shape.heads, 20 + s));
      keys_.push_back(draw(size_t{shape.tokens} * shape.dim, 30 + s));
      chosen_.emplace_back(shape.tokens);
    }
  }

  struct Part {
    uint32_t s;
    uint32_t context;
    uint32_t count;
  };

  // One step; with `stream` null by the plain loops.
  void Step(const std::vector<Part>& parts, Stream* stream) {
    std::vector<float> q, weights, keys;
    std::vector<SequenceRows> sequences;
    uint32_t rows = 0;
    for (const Part& part : parts) {
      sequences.push_back({rows, part.count, part.context, tables_[part.s].data()});
      rows += part.count;
      Append(q, q_[part.s], shape_.heads * shape_.dim, part);
      Append(weights, weights_[part.s], shape_.heads, part);
      Append(keys, keys_[part.s], shape_.dim, part);
    }
    std::vector<uint32_t> slots(size_t{rows} * shape_.top_k + 1, kUntouched);
    const WriteIndexKeysParams write{.cache = cache_, .keys = keys.data(), .sequences = sequences};
    const SelectPositionsParams select{.cache = cache_,
                                       .q = q.data(),
                                       .weights = weights.data(),
                                       .num_heads = shape_.heads,
                                       .top_k = shape_.top_k,
                                       .sequences = sequences,
                                       .slots = slots.data()};
    if (stream == nullptr) {
      reference::WriteIndexKeys(write);
      reference::SelectPositions(select);
    } else {
      WriteIndexKeys(write, *stream);
      SelectPositions(select, *stream);
    }
    EXPECT_EQ(slots.back(), kUntouched);
    for (size_t p = 0; p < parts.size(); ++p) Keep(parts[p], slots, sequences[p].first_row);
  }

  void RunInChunks(uint32_t s, uint32_t chunk, Stream* stream) {
    for (uint32_t context = 0; context < shape_.tokens; context += chunk) {
      Step({{s, context, std::min(chunk, shape_.tokens - context)}}, stream);
    }
  }

  // Of each token of the sequence; empty where it sees no more than top_k.
  const std::vector<std::vector<uint32_t>>& chosen(uint32_t s) const { return chosen_[s]; }

  // In double, of keys as they were given.
  double Score(uint32_t s, uint32_t token, uint32_t position) const {
    double score = 0;
    for (uint32_t h = 0; h < shape_.heads; ++h) {
      const size_t head = size_t{token} * shape_.heads + h;
      double dot = 0;
      for (uint32_t d = 0; d < shape_.dim; ++d) {
        dot += double{q_[s][head * shape_.dim + d]} * keys_[s][size_t{position} * shape_.dim + d];
      }
      score += weights_[s][head] * std::max(dot, 0.0);
    }
    return score;
  }

 private:
  static void Append(std::vector<float>& to, const std::vector<float>& from, size_t width,
                     const Part& part) {
    to.insert(to.end(), from.begin() + part.context * width,
              from.begin() + (part.context + part.count) * width);
  }

  void Keep(const Part& part, const std::vector<uint32_t>& slots, uint32_t first_row) {
    const std::vector<uint32_t>& table = tables_[part.s];
    for (uint32_t i = 0; i < part.count; ++i) {
      std::vector<uint32_t>& positions = chosen_[part.s][part.context + i];
      positions.clear();
      for (uint32_t k = 0; k < shape_.top_k; ++k) {
        const uint32_t slot = slots[size_t{first_row + i} * shape_.top_k + k];
        if (part.context + i + 1 <= shape_.top_k) {
          EXPECT_EQ(slot, kUntouched) << "nothing is to be written for short rows";
          continue;
        }
        const auto block = std::find(table.begin(), table.end(), slot / shape_.block_tokens);
        ASSERT_NE(block, table.end()) << "a slot of another sequence";
        positions.push_back(static_cast<uint32_t>(block - table.begin()) * shape_.block_tokens +
                            slot % shape_.block_tokens);
      }
    }
  }

  const Shape shape_;
  std::vector<float> fp32_;
  std::vector<uint16_t> bf16_;
  PagedIndexKeys cache_;
  std::vector<std::vector<uint32_t>> tables_;
  std::vector<std::vector<float>> q_;
  std::vector<std::vector<float>> weights_;
  std::vector<std::vector<float>> keys_;
  std::vector<std::vector<std::vector<uint32_t>>> chosen_;
};

std::vector<float> Normal(size_t count, uint32_t seed) { return RandomFloats(count, seed); }

// Sums of their products are exact in float32, in any order, and many are equal.
std::vector<float> SmallIntegers(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(static_cast<int>(random() % 3) - 1);
  return values;
}

class IndexSelectionTest : public EachIsaTest {};
INSTANTIATE_TEST_SUITE_P(Isa, IndexSelectionTest, ::testing::ValuesIn(kAllIsas), IsaTestName);

// DeepSeek's own sizes, dims and heads that fill no vector or block, lists of one and of nearly
// all.
TEST_P(IndexSelectionTest, EqualsTheReferenceTiesIncluded) {
  auto stream = MakeStream(2);
  for (const Shape& base :
       {Shape{.heads = 64, .dim = 128, .top_k = 64}, Shape{.heads = 1, .dim = 1, .top_k = 1},
        Shape{.heads = 7, .dim = 5, .top_k = 8}, Shape{.heads = 6, .dim = 20, .top_k = 97},
        Shape{.heads = 13, .dim = 33, .top_k = 100}}) {
    for (const bool fp32 : {false, true}) {
      Shape shape = base;
      shape.fp32 = fp32;
      IndexBench expected(shape, SmallIntegers);
      IndexBench actual(shape, SmallIntegers);
      expected.RunInChunks(0, shape.tokens, nullptr);
      actual.RunInChunks(0, 37, stream.get());
      EXPECT_EQ(actual.chosen(0), expected.chosen(0)) << shape.heads << " heads of " << shape.dim;
    }
  }
}

// Products below 5 * sqrt(dim), chains of dim and then of heads roundings; what is chosen may be
// worse than what is not by that error only.
TEST_P(IndexSelectionTest, ChoosesTheBestOfRandomScores) {
  const Shape shape{.heads = 9, .dim = 40, .top_k = 20, .tokens = 150};
  IndexBench bench(shape, Normal);
  bench.RunInChunks(0, 64, MakeStream(2).get());
  const double tolerance = 2 * (shape.dim + shape.heads) * kRounding * 5 * 40 * 5;
  for (uint32_t token = shape.top_k; token < shape.tokens; ++token) {
    const std::vector<uint32_t>& chosen = bench.chosen(0)[token];
    ASSERT_EQ(chosen.size(), shape.top_k);
    double worst = std::numeric_limits<double>::infinity();
    for (const uint32_t position : chosen) worst = std::min(worst, bench.Score(0, token, position));
    for (uint32_t position = 0; position <= token; ++position) {
      if (std::binary_search(chosen.begin(), chosen.end(), position)) continue;
      ASSERT_LE(bench.Score(0, token, position), worst + tolerance) << "token " << token;
    }
  }
}

// However a prompt is cut, whoever shares the batch, however many threads there are and however
// long the blocks are. Whole prompts have more long rows than are scored at a time.
TEST_P(IndexSelectionTest, SameChoiceInEveryChunkingBatchAndThreadCount) {
  Shape shape{.heads = 5, .dim = 24, .top_k = 10, .tokens = 100, .num_sequences = 3};
  IndexBench whole(shape, Normal);
  auto one = MakeStream(1);
  for (uint32_t s = 0; s < 3; ++s) whole.RunInChunks(s, 100, one.get());
  for (const uint32_t block_tokens : {5u, 16u, 32u}) {
    shape.block_tokens = block_tokens;
    for (const uint32_t num_threads : {1u, 3u}) {
      auto stream = MakeStream(num_threads);
      for (const uint32_t chunk : {1u, 3u, 16u}) {
        IndexBench cut(shape, Normal);
        cut.RunInChunks(0, chunk, stream.get());
        ASSERT_EQ(cut.chosen(0), whole.chosen(0)) << "chunk " << chunk;
      }
      IndexBench mixed(shape, Normal);
      mixed.Step({{1, 0, 37}}, stream.get());
      mixed.Step({{2, 0, 99}, {1, 37, 1}}, stream.get());
      mixed.Step({{2, 99, 1}, {0, 0, 100}, {1, 38, 62}}, stream.get());
      for (uint32_t s = 0; s < 3; ++s) ASSERT_EQ(mixed.chosen(s), whole.chosen(s)) << s;
    }
  }
}

// Over several tasks' positions, with rows of very different length side by side.
TEST_P(IndexSelectionTest, SameChoiceWhenALongContextIsSharedAmongThreads) {
  const Shape shape{.heads = 8, .dim = 16, .top_k = 300, .tokens = 2600, .num_sequences = 2};
  IndexBench whole(shape, Normal);
  IndexBench decoded(shape, Normal);
  auto one = MakeStream(1);
  auto three = MakeStream(3);
  whole.Step({{0, 0, 2590}, {1, 0, 310}}, one.get());
  whole.Step({{0, 2590, 10}, {1, 310, 10}}, one.get());
  decoded.Step({{0, 0, 2590}}, three.get());
  decoded.Step({{1, 0, 310}}, three.get());
  for (uint32_t i = 0; i < 10; ++i) decoded.Step({{0, 2590 + i, 1}, {1, 310 + i, 1}}, three.get());
  EXPECT_EQ(decoded.chosen(0), whole.chosen(0));
  EXPECT_EQ(decoded.chosen(1), whole.chosen(1));
}

// By hand, one head of one dim, so that a score is the weight times the key where that is positive.
TEST_P(IndexSelectionTest, TakesTheHighestAndOfEqualOnesTheLowerPosition) {
  auto stream = MakeStream(2);
  std::vector<float> keys = {3, -1, 2, NAN, 2, 0, -5, 2};
  const uint32_t block_table = 0;
  const float one = 1;
  const auto choose = [&](float weight, uint32_t top_k) {
    const SequenceRows row{0, 1, 7, &block_table};
    std::vector<uint32_t> slots(top_k, kUntouched);
    SelectPositions({.cache = {.data = keys.data(),
                               .type = KvType::kFloat32,
                               .num_blocks = 1,
                               .block_tokens = 8,
                               .dim = 1},
                     .q = &one,
                     .weights = &weight,
                     .num_heads = 1,
                     .top_k = top_k,
                     .sequences = {&row, 1},
                     .slots = slots.data()},
                    *stream);
    return slots;
  };
  EXPECT_THAT(choose(1, 1), ElementsAre(0));
  EXPECT_THAT(choose(1, 3), ElementsAre(0, 2, 4));
  EXPECT_THAT(choose(1, 5), ElementsAre(0, 1, 2, 4, 7));        // of the zeros the first
  EXPECT_THAT(choose(1, 7), ElementsAre(0, 1, 2, 4, 5, 6, 7));  // all but NaN
  EXPECT_THAT(choose(-1, 2), ElementsAre(1, 5));                // those that relu made 0
  EXPECT_THAT(choose(-1, 4), ElementsAre(1, 2, 5, 6));
  EXPECT_THAT(choose(-1, 6), ElementsAre(1, 2, 4, 5, 6, 7));
}

TEST_P(IndexSelectionTest, AsksForNoMoreWorkspaceThanAnnounced) {
  for (const uint32_t num_threads : {1u, 3u}) {
    auto stream = MakeStream(num_threads);
    IndexBench bench({.heads = 2, .dim = 20, .top_k = 4, .tokens = 500, .num_sequences = 2},
                     Normal);
    MeasuringStream measuring(*stream);
    bench.Step({{0, 0, 499}, {1, 0, 60}}, &measuring);
    bench.Step({{0, 499, 1}, {1, 60, 1}}, &measuring);
    EXPECT_LE(measuring.largest(),
              IndexWorkspaceBytes({.dim = 20, .max_rows = 559, .max_positions = 500}, num_threads));
  }
}

// DeepSeek V3.2's longest context: 16 MB of scores and 32 kB a thread.
TEST(IndexWorkspaceTest, DoesNotGrowWithRowsTimesContext) {
  const IndexLimits limits{.dim = 128, .max_rows = 4096, .max_positions = 163840};
  EXPECT_LE(IndexWorkspaceBytes(limits, 64), size_t{18} << 20);
}

TEST_P(IndexSelectionTest, WriteIndexKeysStoresInItsSlotsOnly) {
  auto stream = MakeStream(2);
  std::vector<float> cache(4 * 2 * 3, kPoison);
  const std::vector<float> keys = {1, 2, 3, 4, 5, 6};
  const std::vector<uint32_t> table = {3, 1};
  const SequenceRows rows{0, 2, 1, table.data()};
  WriteIndexKeys({.cache = {.data = cache.data(),
                            .type = KvType::kFloat32,
                            .num_blocks = 4,
                            .block_tokens = 2,
                            .dim = 3},
                  .keys = keys.data(),
                  .sequences = {&rows, 1}},
                 *stream);
  std::vector<float> expected(cache.size(), kPoison);
  std::copy_n(keys.begin(), 3, expected.begin() + (3 * 2 + 1) * 3);
  std::copy_n(keys.begin() + 3, 3, expected.begin() + 1 * 2 * 3);
  EXPECT_EQ(cache, expected);
}

}  // namespace
}  // namespace essor::kernels
