#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "common/float16.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/paged_sequences.h"
#include "kernels/cpu/row_test_support.h"
#include "kernels/reference/attention.h"

namespace essor::kernels {
namespace {

struct HeadShape {
  uint32_t heads;
  uint32_t kv_heads;
  uint32_t dim;
};

// A cache of keys and values, all NaN until written, and the inputs of the sequences.
class AttentionBench : public PagedSequences {
 public:
  struct Options {
    HeadShape shape;
    KvType type = KvType::kBFloat16;
    uint32_t block_tokens = 16;
    uint32_t window = 0;
    uint32_t chunk_size = 0;  // of the mask
    uint32_t num_sequences = 1;
    uint32_t tokens = 100;
    bool sinks = false;
  };

  explicit AttentionBench(const Options& options)
      : PagedSequences({.num_sequences = options.num_sequences,
                        .tokens = options.tokens,
                        .block_tokens = options.block_tokens,
                        .y_width = options.shape.heads * options.shape.dim}),
        options_(options) {
    k_cache_.assign(num_blocks() * Cache().block_bytes(), NanByte(options.type));
    v_cache_ = k_cache_;
    // From far below all scores to far above them.
    for (uint32_t h = 0; options.sinks && h < options.shape.heads; ++h) {
      sinks_.push_back(h == 0 ? -40.0f : 3.0f * static_cast<float>(h) - 4.0f);
    }
    for (uint32_t s = 0; s < options.num_sequences; ++s) {
      q_.push_back(RandomFloats(size_t{options.tokens} * QWidth(), 10 + s, 1.5f));
      k_.push_back(RandomFloats(size_t{options.tokens} * KvWidth(), 20 + s));
      v_.push_back(RandomFloats(size_t{options.tokens} * KvWidth(), 30 + s));
    }
  }

  const Options& options() const { return options_; }
  uint32_t QWidth() const { return options_.shape.heads * options_.shape.dim; }
  uint32_t KvWidth() const { return options_.shape.kv_heads * options_.shape.dim; }

  PagedKv Cache() {
    return {.k = k_cache_.data(),
            .v = v_cache_.data(),
            .type = options_.type,
            .num_blocks = num_blocks(),
            .block_tokens = options_.block_tokens,
            .num_kv_heads = options_.shape.kv_heads,
            .head_dim = options_.shape.dim};
  }

 private:
  void Attend(std::span<const Part> parts, std::span<const SequenceRows> sequences, float* y,
              Stream* stream) override {
    uint32_t rows = 0;
    for (const Part& part : parts) rows += part.count;
    // One buffer with rows [q k v pad], as a fused projection leaves it.
    const uint32_t stride = QWidth() + 2 * KvWidth() + 3;
    std::vector<float> qkv(size_t{rows} * stride + 1, kPoison);  // never without memory
    for (size_t p = 0; p < parts.size(); ++p) {
      for (uint32_t i = 0; i < parts[p].count; ++i) {
        float* row = qkv.data() + size_t{sequences[p].first_row + i} * stride;
        const size_t token = parts[p].context + i;
        std::copy_n(q_[parts[p].s].begin() + token * QWidth(), QWidth(), row);
        std::copy_n(k_[parts[p].s].begin() + token * KvWidth(), KvWidth(), row + QWidth());
        std::copy_n(v_[parts[p].s].begin() + token * KvWidth(), KvWidth(),
                    row + QWidth() + KvWidth());
      }
    }
    const WriteKvParams write{.cache = Cache(),
                              .k = qkv.data() + QWidth(),
                              .v = qkv.data() + QWidth() + KvWidth(),
                              .k_stride = stride,
                              .v_stride = stride,
                              .sequences = sequences};
    const AttentionParams attend{.cache = Cache(),
                                 .q = qkv.data(),
                                 .q_stride = stride,
                                 .num_heads = options_.shape.heads,
                                 .scale = 1.0f / std::sqrt(static_cast<float>(options_.shape.dim)),
                                 .sliding_window = options_.window,
                                 .chunk_size = options_.chunk_size,
                                 .sinks = options_.sinks ? sinks_.data() : nullptr,
                                 .sequences = sequences,
                                 .y = y};
    if (stream == nullptr) {
      reference::WriteKv(write);
      reference::Attention(attend);
    } else {
      WriteKv(write, *stream);
      Attention(attend, *stream);
    }
  }

  const Options options_;
  std::vector<float> sinks_;
  std::vector<std::byte> k_cache_;
  std::vector<std::byte> v_cache_;
  std::vector<std::vector<float>> q_;
  std::vector<std::vector<float>> k_;
  std::vector<std::vector<float>> v_;
};

class AttentionTest : public EachIsaTest {};
INSTANTIATE_TEST_SUITE_P(Isa, AttentionTest, ::testing::ValuesIn(kAllIsas), IsaTestName);

// A score, in units of log2, is a chain of D multiply-adds whose partial sums stay below about
// 1.44 * 1.5 * 5 = 11 (five standard deviations of q.k / sqrt(D)). Rounding errors of a chain grow
// as sqrt(D); six times that is the bound. The relative error of a weight is ln 2 times the score's
// error plus 3e-7 of Exp2. y is a quotient of two sums weighted so, of values below 5, each of the
// sums with up to `tokens` roundings of its own, of which again the root counts.
double AttentionTolerance(const AttentionBench::Options& options) {
  const double score_error = 6 * std::sqrt(options.shape.dim) * kRounding * 11;
  const double sum_error = 6 * std::sqrt(options.tokens) * kRounding;
  return 2 * (0.7 * score_error + 3e-7 + sum_error) * 5;
}

void ExpectNearReference(const AttentionBench::Options& options, uint32_t chunk,
                         CpuStream& stream) {
  AttentionBench expected(options);
  AttentionBench actual(options);
  for (uint32_t s = 0; s < options.num_sequences; ++s) {
    expected.RunInChunks(s, options.tokens, nullptr);
    actual.RunInChunks(s, chunk, &stream);
    const double tolerance = AttentionTolerance(options);
    for (size_t i = 0; i < actual.result(s).size(); ++i) {
      ASSERT_NEAR(actual.result(s)[i], expected.result(s)[i], tolerance)
          << "heads " << options.shape.heads << "/" << options.shape.kv_heads << " dim "
          << options.shape.dim << " token " << i / actual.QWidth() << " window " << options.window
          << " chunk size " << options.chunk_size << " " << NameOf(options.type);
    }
  }
}

TEST_P(AttentionTest, EqualsTheReferenceForEveryShape) {
  auto stream = MakeStream(2);
  const HeadShape shapes[] = {{9, 3, 64}, {4, 4, 32},  {8, 1, 128}, {4, 2, 80},
                              {3, 3, 20}, {2, 1, 256}, {7, 1, 1},   {100, 1, 16}};
  for (const HeadShape& shape : shapes) {
    for (const KvType type : kKvTypes) {
      ExpectNearReference({.shape = shape, .type = type, .tokens = 100}, 100, *stream);
    }
  }
}

TEST_P(AttentionTest, EqualsTheReferenceWithWindows) {
  auto stream = MakeStream(2);
  for (uint32_t window : {1u, 2u, 63u, 64u, 65u, 128u, 300u}) {
    for (uint32_t chunk : {290u, 7u}) {
      ExpectNearReference({.shape = {4, 2, 24}, .window = window, .tokens = 290}, chunk, *stream);
    }
    ExpectNearReference(
        {.shape = {4, 2, 16}, .type = KvType::kInt8, .window = window, .tokens = 290}, 7, *stream);
  }
}

// Borders of chunks inside tiles of 64 positions, at their ends, inside partitions of 256 and at
// their ends.
TEST_P(AttentionTest, EqualsTheReferenceWithChunks) {
  auto stream = MakeStream(2);
  for (uint32_t chunk_size : {1u, 2u, 8u, 63u, 64u, 65u, 100u, 256u, 300u, 4000u}) {
    for (uint32_t step : {290u, 7u}) {
      ExpectNearReference({.shape = {4, 2, 24}, .chunk_size = chunk_size, .tokens = 290}, step,
                          *stream);
      if (chunk_size == 100) {
        ExpectNearReference(
            {.shape = {3, 3, 16}, .type = KvType::kFloat32, .chunk_size = 100, .tokens = 290}, step,
            *stream);
      }
    }
  }
}

TEST_P(AttentionTest, SameBitsInEveryChunkingWithAChunkedMask) {
  for (uint32_t chunk_size : {8u, 50u, 64u, 300u}) {
    const AttentionBench::Options options{
        .shape = {6, 2, 32}, .chunk_size = chunk_size, .num_sequences = 2, .tokens = 330};
    AttentionBench whole(options);
    auto one = MakeStream(1);
    for (uint32_t s = 0; s < 2; ++s) whole.RunInChunks(s, 330, one.get());
    for (uint32_t num_threads : {1u, 3u}) {
      auto stream = MakeStream(num_threads);
      for (uint32_t step : {1u, 3u, 16u, 64u}) {
        AttentionBench cut(options);
        cut.RunInChunks(0, step, stream.get());
        ASSERT_TRUE(SameBits(cut.result(0), whole.result(0)))
            << "chunk size " << chunk_size << " step " << step << " threads " << num_threads;
      }
      AttentionBench mixed(options);
      mixed.Step({{1, 0, 49}}, stream.get());
      mixed.Step({{0, 0, 299}, {1, 49, 1}}, stream.get());
      mixed.Step({{0, 299, 31}, {1, 50, 280}}, stream.get());
      for (uint32_t s = 0; s < 2; ++s) {
        ASSERT_TRUE(SameBits(mixed.result(s), whole.result(s))) << "chunk size " << chunk_size;
      }
    }
  }
}

// What lies wholly behind the window, or in the chunks before, of a step's first row may be given
// back before the step: entries of the block table that say where it was are not looked up.
TEST_P(AttentionTest, NeverLooksUpBlocksBehindTheWindow) {
  struct Mask {
    uint32_t window;
    uint32_t chunk_size;
  };
  for (const Mask& mask : {Mask{1, 0}, Mask{8, 0}, Mask{63, 0}, Mask{130, 0}, Mask{300, 0},
                           Mask{0, 8}, Mask{0, 50}, Mask{0, 128}, Mask{0, 300}}) {
    for (const uint32_t block_tokens : {8u, 16u}) {
      for (const uint32_t step : {1u, 5u, 90u}) {
        const AttentionBench::Options options{.shape = {6, 2, 32},
                                              .block_tokens = block_tokens,
                                              .window = mask.window,
                                              .chunk_size = mask.chunk_size,
                                              .tokens = 430};
        auto stream = MakeStream(3);
        AttentionBench whole(options);
        whole.RunInChunks(0, 430, stream.get());
        AttentionBench cut(options);
        for (uint32_t context = 0; context < 430; context += step) {
          const uint32_t first_seen = mask.chunk_size != 0
                                          ? context / mask.chunk_size * mask.chunk_size
                                          : context + 1 - std::min(context + 1, mask.window);
          cut.ForgetBlocks(0, first_seen / block_tokens);
          cut.Step({{0, context, std::min(step, 430 - context)}}, stream.get());
        }
        ASSERT_TRUE(SameBits(cut.result(0), whole.result(0)))
            << "window " << mask.window << " chunk size " << mask.chunk_size << " step " << step;
      }
    }
  }
}

TEST_P(AttentionTest, EqualsTheReferenceWithSinks) {
  auto stream = MakeStream(3);
  for (uint32_t window : {0u, 5u, 128u}) {
    for (uint32_t chunk : {300u, 1u}) {
      ExpectNearReference({.shape = {6, 2, 24}, .window = window, .tokens = 300, .sinks = true},
                          chunk, *stream);
    }
  }
}

TEST_P(AttentionTest, EqualsTheReferenceOverSeveralPartitions) {
  auto stream = MakeStream(3);
  for (const KvType type : {KvType::kBFloat16, KvType::kFp8, KvType::kInt8}) {
    ExpectNearReference({.shape = {6, 2, 64}, .type = type, .tokens = 700}, 700, *stream);
    ExpectNearReference({.shape = {6, 2, 64}, .type = type, .tokens = 700}, 1, *stream);
  }
}

// The promise: however a prompt is cut, whoever shares the batch, however many threads there are
// and however long the blocks are, a row has the same bits.
TEST_P(AttentionTest, SameBitsInEveryChunkingBatchAndThreadCount) {
  for (const KvType type : kKvTypes) {
    AttentionBench::Options options{.shape = {6, 2, 32},
                                    .type = type,
                                    .num_sequences = 3,
                                    .tokens = 100,
                                    .sinks = type == KvType::kFloat32};
    AttentionBench whole(options);
    auto one = MakeStream(1);
    for (uint32_t s = 0; s < 3; ++s) whole.RunInChunks(s, 100, one.get());
    for (uint32_t block_tokens : {8u, 16u, 32u}) {
      options.block_tokens = block_tokens;
      for (uint32_t num_threads : {1u, 2u, 3u}) {
        auto stream = MakeStream(num_threads);
        for (uint32_t chunk : {1u, 3u, 16u, 64u}) {
          AttentionBench cut(options);
          cut.RunInChunks(0, chunk, stream.get());
          ASSERT_TRUE(SameBits(cut.result(0), whole.result(0)))
              << "chunk " << chunk << " threads " << num_threads << " block " << block_tokens;
        }
        // All three at different positions in one batch: a prefill, a chunk, and decode.
        AttentionBench mixed(options);
        mixed.Step({{1, 0, 37}}, stream.get());
        mixed.Step({{2, 0, 99}, {1, 37, 1}}, stream.get());
        mixed.Step({{2, 99, 1}, {0, 0, 100}, {1, 38, 62}}, stream.get());
        for (uint32_t s = 0; s < 3; ++s) {
          ASSERT_TRUE(SameBits(mixed.result(s), whole.result(s)))
              << "sequence " << s << " threads " << num_threads << " block " << block_tokens;
        }
      }
    }
  }
}

// One row over a long context: the partitions go to several threads and are merged.
TEST_P(AttentionTest, SameBitsWhenALongContextIsSharedAmongThreads) {
  struct Mask {
    uint32_t window;
    uint32_t chunk_size;
    bool sinks;
  };
  for (const Mask& mask : {Mask{0, 0, false}, Mask{600, 0, true}, Mask{0, 700, true}}) {
    const AttentionBench::Options options{.shape = {3, 1, 64},
                                          .window = mask.window,
                                          .chunk_size = mask.chunk_size,
                                          .num_sequences = 2,
                                          .tokens = 1100,
                                          .sinks = mask.sinks};
    AttentionBench whole(options);
    auto one = MakeStream(1);
    whole.RunInChunks(0, 1100, one.get());
    for (uint32_t num_threads : {1u, 2u, 3u}) {
      auto stream = MakeStream(num_threads);
      AttentionBench decoded(options);
      decoded.Step({{0, 0, 250}}, stream.get());
      // A whole task (two rows) beside a split one.
      for (uint32_t context = 250; context < 260; ++context) {
        decoded.Step({{0, context, 1}}, stream.get());
      }
      decoded.Step({{0, 260, 770}, {1, 0, 2}}, stream.get());
      decoded.Step({{1, 2, 1}, {0, 1030, 1}}, stream.get());
      for (uint32_t context = 1031; context < 1100; ++context) {
        decoded.Step({{0, context, 1}}, stream.get());
      }
      EXPECT_TRUE(SameBits(decoded.result(0), whole.result(0))) << num_threads << " threads";
    }
  }
}

TEST_P(AttentionTest, AsksForNoMoreWorkspaceThanAnnounced) {
  for (uint32_t num_threads : {1u, 3u}) {
    auto stream = MakeStream(num_threads);
    const AttentionBench::Options options{.shape = {6, 2, 24}, .num_sequences = 2, .tokens = 530};
    AttentionBench bench(options);
    MeasuringStream measuring(*stream);
    bench.Step({{0, 0, 529}, {1, 0, 128}}, &measuring);
    bench.Step({{0, 529, 1}, {1, 128, 1}}, &measuring);
    EXPECT_LE(measuring.largest(), AttentionWorkspaceBytes({.num_heads = 6,
                                                            .num_kv_heads = 2,
                                                            .key_dim = 24,
                                                            .value_dim = 24,
                                                            .max_rows = 657,
                                                            .max_sequences = 2,
                                                            .max_positions = 530},
                                                           num_threads));
  }
}

// By hand: with equal keys the result is the mean of the values seen so far.
TEST_P(AttentionTest, EqualKeysGiveTheMeanOfTheValues) {
  auto stream = MakeStream(2);
  std::vector<float> k_cache(16, 0.0f);
  std::vector<float> v_cache(16, 0.0f);
  const uint32_t block_table = 0;
  const std::vector<SequenceRows> sequences = {
      {.first_row = 0, .num_rows = 4, .context_tokens = 0, .block_table = &block_table}};
  const PagedKv cache{.k = k_cache.data(),
                      .v = v_cache.data(),
                      .type = KvType::kFloat32,
                      .num_blocks = 1,
                      .block_tokens = 16,
                      .num_kv_heads = 1,
                      .head_dim = 1};
  const std::vector<float> q = {1, -1, 2, 3};
  const std::vector<float> k = {0.5f, 0.5f, 0.5f, 0.5f};
  const std::vector<float> v = {4, 8, 0, 8};
  WriteKv({.cache = cache,
           .k = k.data(),
           .v = v.data(),
           .k_stride = 1,
           .v_stride = 1,
           .sequences = sequences},
          *stream);
  std::vector<float> y(4, kPoison);
  AttentionParams params{.cache = cache,
                         .q = q.data(),
                         .q_stride = 1,
                         .num_heads = 1,
                         .scale = 1,
                         .sliding_window = 0,
                         .sequences = sequences,
                         .y = y.data()};
  Attention(params, *stream);
  EXPECT_THAT(y, ::testing::ElementsAre(4, 6, 4, 5));
  params.sliding_window = 2;  // the own key and the one before
  Attention(params, *stream);
  EXPECT_THAT(y, ::testing::ElementsAre(4, 6, 4, 4));
  // A sink with the score of the last row's two keys takes a third of its softmax; an endless one
  // takes all.
  float sink = 1.5f;
  params.sinks = &sink;
  Attention(params, *stream);
  EXPECT_NEAR(y[3], 8.0 / 3, 1e-5);
  sink = 3e38f;
  Attention(params, *stream);
  EXPECT_THAT(y, ::testing::Each(::testing::FloatNear(0, 1e-30f)));
  params.sinks = nullptr;
  params.sliding_window = 0;
  params.chunk_size = 3;  // the last key is the first of its chunk
  Attention(params, *stream);
  EXPECT_THAT(y, ::testing::ElementsAre(4, 6, 4, 8));
}

// As behind an output gate: every head's query has a neighbour of the same size.
TEST_P(AttentionTest, QueriesOfHeadsMayStandApart) {
  constexpr uint32_t kDim = 20;
  constexpr uint32_t kHeads = 3;
  constexpr uint32_t kTokens = 40;
  auto stream = MakeStream(2);
  std::vector<float> keys(size_t{3} * 16 * kDim);
  std::vector<float> values(keys.size());
  const std::vector<uint32_t> blocks = {2, 0, 1};
  const SequenceRows rows{
      .first_row = 0, .num_rows = kTokens, .context_tokens = 0, .block_table = blocks.data()};
  const PagedKv cache{.k = keys.data(),
                      .v = values.data(),
                      .type = KvType::kFloat32,
                      .num_blocks = 3,
                      .block_tokens = 16,
                      .num_kv_heads = 1,
                      .head_dim = kDim};
  const auto k = RandomFloats(kTokens * kDim, 1);
  const auto v = RandomFloats(kTokens * kDim, 2);
  WriteKv({.cache = cache,
           .k = k.data(),
           .v = v.data(),
           .k_stride = kDim,
           .v_stride = kDim,
           .sequences = {&rows, 1}},
          *stream);
  const auto q = RandomFloats(size_t{kTokens} * kHeads * kDim, 3);
  std::vector<float> apart(2 * q.size(), kPoison);
  for (size_t head = 0; head < q.size() / kDim; ++head) {
    std::copy_n(q.begin() + static_cast<ptrdiff_t>(head * kDim), kDim,
                apart.begin() + static_cast<ptrdiff_t>(2 * head * kDim));
  }
  std::vector<float> expected(q.size());
  std::vector<float> y(q.size(), kPoison);
  AttentionParams params{.cache = cache,
                         .q = q.data(),
                         .q_stride = kHeads * kDim,
                         .num_heads = kHeads,
                         .scale = 0.25f,
                         .sliding_window = 0,
                         .sequences = {&rows, 1},
                         .y = expected.data()};
  Attention(params, *stream);
  params.q = apart.data();
  params.q_stride = 2 * kHeads * kDim;
  params.q_head_stride = 2 * kDim;
  params.y = y.data();
  Attention(params, *stream);
  EXPECT_EQ(y, expected);
}

TEST_P(AttentionTest, NothingHappensWithoutRows) {
  auto stream = MakeStream(2);
  AttentionBench bench({.shape = {3, 1, 16}, .num_sequences = 2, .tokens = 20});
  bench.Step({}, stream.get());
  bench.Step({{0, 0, 0}, {1, 0, 5}, {0, 0, 0}}, stream.get());
  EXPECT_NE(bench.result(1)[0], kPoison);
  EXPECT_EQ(bench.result(0)[0], kPoison);
}

// The cache holds what common/float16.h makes of each value, keys at [block, head, dim, slot] and
// values at [block, head, slot, dim], and nothing else has changed.
TEST_P(AttentionTest, WriteKvStoresRoundedValuesInTheirSlotsOnly) {
  constexpr uint32_t kDim = 21;
  constexpr uint32_t kBlock = 4;
  constexpr uint32_t kHeads = 2;
  constexpr uint32_t kRows = 6;
  for (uint32_t num_threads : {1u, 3u}) {
    auto stream = MakeStream(num_threads);
    auto k = RandomFloats(kRows * kHeads * kDim, 1);
    auto v = RandomFloats(kRows * kHeads * kDim, 2);
    k[3] = std::numeric_limits<float>::quiet_NaN();
    k[4] = std::numeric_limits<float>::infinity();
    k[5] = 1.00390625f;  // a tie, to even
    k[6] = -1e-41f;      // a denormal
    k[7] = 3.4e38f;      // rounds to infinity
    std::vector<uint16_t> k_cache(5 * kHeads * kBlock * kDim, 0x1234);
    std::vector<uint16_t> v_cache = k_cache;
    std::vector<uint16_t> expected_k = k_cache;
    std::vector<uint16_t> expected_v = v_cache;
    const std::vector<uint32_t> table = {3, 1, 4};
    const std::vector<SequenceRows> sequences = {
        {.first_row = 0, .num_rows = kRows, .context_tokens = 3, .block_table = table.data()}};
    for (uint32_t i = 0; i < kRows; ++i) {
      for (uint32_t h = 0; h < kHeads; ++h) {
        for (uint32_t d = 0; d < kDim; ++d) {
          const uint32_t block = (table[(3 + i) / kBlock] * kHeads + h) * kBlock * kDim;
          const uint32_t slot = (3 + i) % kBlock;
          const uint32_t element = (i * kHeads + h) * kDim + d;
          expected_k[block + d * kBlock + slot] = ToBFloat16(k[element]).bits;
          expected_v[block + slot * kDim + d] = ToBFloat16(v[element]).bits;
        }
      }
    }
    WriteKv({.cache = {.k = k_cache.data(),
                       .v = v_cache.data(),
                       .type = KvType::kBFloat16,
                       .num_blocks = 5,
                       .block_tokens = kBlock,
                       .num_kv_heads = kHeads,
                       .head_dim = kDim},
             .k = k.data(),
             .v = v.data(),
             .k_stride = kHeads * kDim,
             .v_stride = kHeads * kDim,
             .sequences = sequences},
            *stream);
    EXPECT_EQ(k_cache, expected_k);
    EXPECT_EQ(v_cache, expected_v);
  }
}

}  // namespace
}  // namespace essor::kernels
