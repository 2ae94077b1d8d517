#include "kernels/latent_attention.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "common/float16.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/paged_sequences.h"
#include "kernels/cpu/row_test_support.h"
#include "kernels/reference/latent_attention.h"

namespace essor::kernels {
namespace {

// A cache of latents, all NaN until written, and the inputs of the sequences.
class LatentBench : public PagedSequences {
 public:
  struct Options {
    uint32_t heads;
    uint32_t latent_dim;
    uint32_t rope_dim;
    KvType type = KvType::kBFloat16;
    uint32_t block_tokens = 16;
    uint32_t num_sequences = 1;
    uint32_t tokens = 100;
  };

  explicit LatentBench(const Options& options)
      : PagedSequences({.num_sequences = options.num_sequences,
                        .tokens = options.tokens,
                        .block_tokens = options.block_tokens,
                        .y_width = options.heads * options.latent_dim}),
        options_(options) {
    cache_.assign(num_blocks() * Cache().block_bytes(), NanByte(options.type));
    for (uint32_t s = 0; s < options.num_sequences; ++s) {
      q_latent_.push_back(RandomFloats(size_t{options.tokens} * YWidth(), 10 + s));
      q_rope_.push_back(RandomFloats(size_t{options.tokens} * QRopeWidth(), 20 + s));
      latents_.push_back(RandomFloats(size_t{options.tokens} * options.latent_dim, 30 + s));
      rope_keys_.push_back(RandomFloats(size_t{options.tokens} * options.rope_dim, 40 + s));
    }
  }

  uint32_t YWidth() const { return options_.heads * options_.latent_dim; }
  float Scale() const {
    return 1.0f / std::sqrt(static_cast<float>(options_.latent_dim + options_.rope_dim));
  }

 private:
  void Attend(std::span<const Part> parts, std::span<const SequenceRows> sequences, float* y,
              Stream* stream) override {
    std::vector<float> q_latent, q_rope, latents, rope_keys;
    const auto append = [](std::vector<float>& to, const std::vector<float>& from, size_t width,
                           const Part& part) {
      to.insert(to.end(), from.begin() + part.context * width,
                from.begin() + (part.context + part.count) * width);
    };
    for (const Part& part : parts) {
      append(q_latent, q_latent_[part.s], YWidth(), part);
      append(q_rope, q_rope_[part.s], QRopeWidth(), part);
      append(latents, latents_[part.s], options_.latent_dim, part);
      append(rope_keys, rope_keys_[part.s], options_.rope_dim, part);
    }
    const WriteLatentsParams write{.cache = Cache(),
                                   .latents = latents.data(),
                                   .rope_keys = rope_keys.data(),
                                   .sequences = sequences};
    const LatentAttentionParams attend{.cache = Cache(),
                                       .q_latent = q_latent.data(),
                                       .q_rope = q_rope.data() + kBeforeRope,
                                       .q_rope_row_stride = QRopeWidth(),
                                       .q_rope_head_stride = kBeforeRope + options_.rope_dim,
                                       .num_heads = options_.heads,
                                       .scale = Scale(),
                                       .sequences = sequences,
                                       .y = y};
    if (stream == nullptr) {
      reference::WriteLatents(write);
      reference::LatentAttention(attend);
    } else {
      WriteLatents(write, *stream);
      LatentAttention(attend, *stream);
    }
  }

  // Dims of a query head before the rotated ones, as a projection leaves them.
  static constexpr uint32_t kBeforeRope = 3;

  uint32_t QRopeWidth() const { return options_.heads * (kBeforeRope + options_.rope_dim); }
  PagedLatents Cache() {
    return {.data = cache_.data(),
            .type = options_.type,
            .num_blocks = num_blocks(),
            .block_tokens = options_.block_tokens,
            .latent_dim = options_.latent_dim,
            .rope_dim = options_.rope_dim};
  }

  const Options options_;
  std::vector<std::byte> cache_;
  std::vector<std::vector<float>> q_latent_;
  std::vector<std::vector<float>> q_rope_;
  std::vector<std::vector<float>> latents_;
  std::vector<std::vector<float>> rope_keys_;
};

class LatentAttentionTest : public EachIsaTest {};
INSTANTIATE_TEST_SUITE_P(Isa, LatentAttentionTest, ::testing::ValuesIn(kAllIsas), IsaTestName);

// As in attention_test.cc: the score is a chain of D = L + R multiply-adds with partial sums below
// about 1.44 * 5, values are below 5, and errors of a chain grow as the root of its length.
double Tolerance(const LatentBench::Options& options) {
  const double score_error =
      6 * std::sqrt(options.latent_dim + options.rope_dim) * kRounding * 1.44 * 5;
  const double sum_error = 6 * std::sqrt(options.tokens) * kRounding;
  return 2 * (0.7 * score_error + 3e-7 + sum_error) * 5;
}

void ExpectNearReference(const LatentBench::Options& options, uint32_t chunk, CpuStream& stream) {
  LatentBench expected(options);
  LatentBench actual(options);
  for (uint32_t s = 0; s < options.num_sequences; ++s) {
    expected.RunInChunks(s, options.tokens, nullptr);
    actual.RunInChunks(s, chunk, &stream);
    for (size_t i = 0; i < actual.result(s).size(); ++i) {
      ASSERT_NEAR(actual.result(s)[i], expected.result(s)[i], Tolerance(options))
          << options.heads << " heads, latent " << options.latent_dim << ", rope "
          << options.rope_dim << ", element " << i << ", " << NameOf(options.type);
    }
  }
}

// DeepSeek's own sizes, dims that are no whole vectors, and a latent that ends inside one.
TEST_P(LatentAttentionTest, EqualsTheReferenceForEveryShape) {
  auto stream = MakeStream(2);
  for (const LatentBench::Options& shape :
       {LatentBench::Options{.heads = 2, .latent_dim = 512, .rope_dim = 64},
        LatentBench::Options{.heads = 4, .latent_dim = 16, .rope_dim = 8},
        LatentBench::Options{.heads = 3, .latent_dim = 21, .rope_dim = 6},
        LatentBench::Options{.heads = 1, .latent_dim = 1, .rope_dim = 2},
        LatentBench::Options{.heads = 128, .latent_dim = 40, .rope_dim = 10}}) {
    for (const KvType type : kKvTypes) {
      LatentBench::Options options = shape;
      options.type = type;
      options.tokens = 70;
      ExpectNearReference(options, 70, *stream);
      ExpectNearReference(options, 9, *stream);
    }
  }
}

TEST_P(LatentAttentionTest, EqualsTheReferenceOverSeveralPartitions) {
  auto stream = MakeStream(3);
  ExpectNearReference({.heads = 3, .latent_dim = 32, .rope_dim = 8, .tokens = 600}, 600, *stream);
  ExpectNearReference({.heads = 3, .latent_dim = 32, .rope_dim = 8, .tokens = 600}, 1, *stream);
}

// However a prompt is cut, whoever shares the batch, however many threads there are and however
// long the blocks are, a row has the same bits; and so has a head, whichever others are computed
// with it.
TEST_P(LatentAttentionTest, SameBitsInEveryChunkingBatchAndThreadCount) {
  for (const KvType type : kKvTypes) {
    LatentBench::Options options{.heads = 5,
                                 .latent_dim = 40,
                                 .rope_dim = 12,
                                 .type = type,
                                 .num_sequences = 3,
                                 .tokens = 100};
    LatentBench whole(options);
    auto one = MakeStream(1);
    for (uint32_t s = 0; s < 3; ++s) whole.RunInChunks(s, 100, one.get());
    for (const uint32_t block_tokens : {5u, 16u, 32u}) {
      options.block_tokens = block_tokens;
      for (const uint32_t num_threads : {1u, 2u, 3u}) {
        auto stream = MakeStream(num_threads);
        for (const uint32_t chunk : {1u, 3u, 16u, 64u}) {
          LatentBench cut(options);
          cut.RunInChunks(0, chunk, stream.get());
          ASSERT_TRUE(SameBits(cut.result(0), whole.result(0)))
              << "chunk " << chunk << " threads " << num_threads << " block " << block_tokens;
        }
        LatentBench mixed(options);
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
TEST_P(LatentAttentionTest, SameBitsWhenALongContextIsSharedAmongThreads) {
  const LatentBench::Options options{.heads = 3, .latent_dim = 32, .rope_dim = 16, .tokens = 800};
  LatentBench whole(options);
  auto one = MakeStream(1);
  whole.RunInChunks(0, 800, one.get());
  for (const uint32_t num_threads : {2u, 3u}) {
    auto stream = MakeStream(num_threads);
    LatentBench decoded(options);
    decoded.Step({{0, 0, 250}}, stream.get());
    for (uint32_t context = 250; context < 260; ++context) {
      decoded.Step({{0, context, 1}}, stream.get());
    }
    decoded.Step({{0, 260, 500}}, stream.get());
    for (uint32_t context = 760; context < 800; ++context) {
      decoded.Step({{0, context, 1}}, stream.get());
    }
    EXPECT_TRUE(SameBits(decoded.result(0), whole.result(0))) << num_threads << " threads";
  }
}

// States of split rows are bounded: the last of these rows find no room and go whole, and nobody
// can tell. One row has 12 partitions with states of 0.8 MB each.
TEST_P(LatentAttentionTest, SameBitsWhenNotEveryRowCanBeSplit) {
  if (GetParam() == CpuIsa::kReference || GetParam() == CpuIsa::kPortable) {
    GTEST_SKIP() << "many multiplications, and the division is the same";
  }
  constexpr uint32_t kHeads = 100;
  constexpr uint32_t kLatent = 2000;
  constexpr uint32_t kRope = 2;
  constexpr uint32_t kContext = 2820;
  constexpr uint32_t kRows = 8;
  std::vector<float> cache = RandomFloats(size_t{kContext + 1} * (kLatent + kRope), 1);
  const uint32_t block_table = 0;
  std::vector<SequenceRows> sequences;
  for (uint32_t row = 0; row < kRows; ++row) {
    sequences.push_back(
        {.first_row = row, .num_rows = 1, .context_tokens = kContext, .block_table = &block_table});
  }
  const auto q_latent = RandomFloats(size_t{kRows} * kHeads * kLatent, 2);
  const auto q_rope = RandomFloats(size_t{kRows} * kHeads * kRope, 3);
  std::vector<std::vector<float>> results;
  for (const uint32_t num_threads : {1u, 3u}) {
    std::vector<float> y(q_latent.size(), kPoison);
    LatentAttention({.cache = {.data = cache.data(),
                               .type = KvType::kFloat32,
                               .num_blocks = 1,
                               .block_tokens = kContext + 1,
                               .latent_dim = kLatent,
                               .rope_dim = kRope},
                     .q_latent = q_latent.data(),
                     .q_rope = q_rope.data(),
                     .q_rope_row_stride = kHeads * kRope,
                     .q_rope_head_stride = kRope,
                     .num_heads = kHeads,
                     .scale = 0.02f,
                     .sequences = sequences,
                     .y = y.data()},
                    *MakeStream(num_threads));
    results.push_back(std::move(y));
  }
  EXPECT_TRUE(SameBits(results[0], results[1]));
}

// DeepSeek V3 on one rank with its longest context: the states of one row (169 MB) and the scratch
// of the threads, not those of every row that might be split.
TEST(LatentAttentionWorkspaceTest, DoesNotGrowWithRowsTimesContext) {
  const AttentionLimits limits{.num_heads = 128,
                               .num_kv_heads = 1,
                               .key_dim = 576,
                               .value_dim = 512,
                               .max_rows = 512,
                               .max_sequences = 64,
                               .max_positions = 163840};
  EXPECT_LT(AttentionWorkspaceBytes(limits, 64), size_t{300} << 20);
}

TEST_P(LatentAttentionTest, AsksForNoMoreWorkspaceThanAnnounced) {
  for (const uint32_t num_threads : {1u, 3u}) {
    auto stream = MakeStream(num_threads);
    LatentBench bench(
        {.heads = 5, .latent_dim = 20, .rope_dim = 4, .num_sequences = 2, .tokens = 530});
    MeasuringStream measuring(*stream);
    bench.Step({{0, 0, 529}, {1, 0, 128}}, &measuring);
    bench.Step({{0, 529, 1}, {1, 128, 1}}, &measuring);
    EXPECT_LE(measuring.largest(), AttentionWorkspaceBytes({.num_heads = 5,
                                                            .num_kv_heads = 1,
                                                            .key_dim = 24,
                                                            .value_dim = 20,
                                                            .max_rows = 657,
                                                            .max_sequences = 2,
                                                            .max_positions = 530},
                                                           num_threads));
  }
}

// Attention to chosen positions through the view of single tokens: the bits of a sequence that
// holds nothing else, over more than one partition, and the plain loops' result.
TEST_P(LatentAttentionTest, ChosenPositionsAreASequenceOfTheirOwn) {
  constexpr uint32_t kHeads = 5;
  constexpr uint32_t kLatent = 24;
  constexpr uint32_t kRope = 8;
  constexpr uint32_t kBlock = 16;
  constexpr uint32_t kTokens = 900;
  constexpr uint32_t kChosen = 300;
  constexpr uint32_t kWidth = kLatent + kRope;
  std::vector<float> cache = RandomFloats(size_t{kTokens + kBlock} * kWidth, 1);
  std::vector<uint32_t> slots(kTokens);
  std::iota(slots.begin(), slots.end(), 7u);
  std::shuffle(slots.begin(), slots.end(), std::mt19937(5));
  slots.resize(kChosen);
  std::vector<float> alone;
  for (const uint32_t slot : slots) {
    alone.insert(alone.end(), cache.begin() + slot * kWidth, cache.begin() + (slot + 1) * kWidth);
  }
  const auto q_latent = RandomFloats(size_t{2} * kHeads * kLatent, 2);
  const auto q_rope = RandomFloats(size_t{2} * kHeads * kRope, 3);
  const auto attend = [&](const PagedLatents& latents, const uint32_t* table, Stream* stream) {
    const SequenceRows rows[] = {{0, 1, kChosen - 1, table}, {1, 1, 9, table}};
    std::vector<float> y(q_latent.size(), kPoison);
    const LatentAttentionParams params{.cache = latents,
                                       .q_latent = q_latent.data(),
                                       .q_rope = q_rope.data(),
                                       .q_rope_row_stride = kHeads * kRope,
                                       .q_rope_head_stride = kRope,
                                       .num_heads = kHeads,
                                       .scale = 0.2f,
                                       .sequences = rows,
                                       .y = y.data()};
    if (stream == nullptr) {
      reference::LatentAttention(params);
    } else {
      LatentAttention(params, *stream);
    }
    return y;
  };
  const PagedLatents view = AsSingleTokens({.data = cache.data(),
                                            .type = KvType::kFloat32,
                                            .num_blocks = (kTokens + kBlock) / kBlock,
                                            .block_tokens = kBlock,
                                            .latent_dim = kLatent,
                                            .rope_dim = kRope});
  const PagedLatents own{.data = alone.data(),
                         .type = KvType::kFloat32,
                         .num_blocks = 1,
                         .block_tokens = kChosen,
                         .latent_dim = kLatent,
                         .rope_dim = kRope};
  const uint32_t own_table = 0;
  const std::vector<float> expected = attend(view, slots.data(), nullptr);
  for (const uint32_t num_threads : {1u, 3u}) {
    auto stream = MakeStream(num_threads);
    const std::vector<float> y = attend(view, slots.data(), stream.get());
    EXPECT_TRUE(SameBits(y, attend(own, &own_table, stream.get())));
    const LatentBench::Options sizes{
        .heads = kHeads, .latent_dim = kLatent, .rope_dim = kRope, .tokens = kChosen};
    for (size_t i = 0; i < y.size(); ++i) ASSERT_NEAR(y[i], expected[i], Tolerance(sizes));
  }
}

// By hand: equal scores give the mean of the latents seen, and the rotated key counts for scores
// only.
TEST_P(LatentAttentionTest, EqualScoresGiveTheMeanOfTheLatents) {
  auto stream = MakeStream(2);
  std::vector<float> cache(16 * 3, 0.0f);
  const uint32_t block_table = 0;
  const std::vector<SequenceRows> sequences = {
      {.first_row = 0, .num_rows = 3, .context_tokens = 0, .block_table = &block_table}};
  const PagedLatents paged{.data = cache.data(),
                           .type = KvType::kFloat32,
                           .num_blocks = 1,
                           .block_tokens = 16,
                           .latent_dim = 1,
                           .rope_dim = 2};
  const std::vector<float> latents = {4, 8, 0};
  const std::vector<float> rope_keys = {-4, 0, -8, 0, 0, 0};  // undo the latents' part
  WriteLatents({.cache = paged,
                .latents = latents.data(),
                .rope_keys = rope_keys.data(),
                .sequences = sequences},
               *stream);
  const std::vector<float> q_latent = {1, 2, 3};
  const std::vector<float> q_rope = {1, 0, 2, 0, 3, 0};
  std::vector<float> y(3, kPoison);
  LatentAttention({.cache = paged,
                   .q_latent = q_latent.data(),
                   .q_rope = q_rope.data(),
                   .q_rope_row_stride = 2,
                   .q_rope_head_stride = 2,
                   .num_heads = 1,
                   .scale = 1,
                   .sequences = sequences,
                   .y = y.data()},
                  *stream);
  EXPECT_THAT(y, ::testing::ElementsAre(4, 6, 4));
}

// The cache holds what common/float16.h makes of each value, a token's side by side, and nothing
// else has changed.
TEST_P(LatentAttentionTest, WriteLatentsStoresRoundedValuesInTheirSlotsOnly) {
  constexpr uint32_t kLatent = 21;
  constexpr uint32_t kRope = 6;
  constexpr uint32_t kBlock = 4;
  constexpr uint32_t kRows = 6;
  for (const uint32_t num_threads : {1u, 3u}) {
    auto stream = MakeStream(num_threads);
    const auto latents = RandomFloats(kRows * kLatent, 1);
    const auto rope_keys = RandomFloats(kRows * kRope, 2);
    std::vector<uint16_t> cache(5 * kBlock * (kLatent + kRope), 0x1234);
    std::vector<uint16_t> expected = cache;
    const std::vector<uint32_t> table = {3, 1, 4};
    const std::vector<SequenceRows> sequences = {
        {.first_row = 0, .num_rows = kRows, .context_tokens = 3, .block_table = table.data()}};
    for (uint32_t i = 0; i < kRows; ++i) {
      const uint32_t slot = table[(3 + i) / kBlock] * kBlock + (3 + i) % kBlock;
      uint16_t* to = expected.data() + slot * (kLatent + kRope);
      for (uint32_t d = 0; d < kLatent; ++d) to[d] = ToBFloat16(latents[i * kLatent + d]).bits;
      for (uint32_t d = 0; d < kRope; ++d) {
        to[kLatent + d] = ToBFloat16(rope_keys[i * kRope + d]).bits;
      }
    }
    WriteLatents({.cache = {.data = cache.data(),
                            .type = KvType::kBFloat16,
                            .num_blocks = 5,
                            .block_tokens = kBlock,
                            .latent_dim = kLatent,
                            .rope_dim = kRope},
                  .latents = latents.data(),
                  .rope_keys = rope_keys.data(),
                  .sequences = sequences},
                 *stream);
    EXPECT_EQ(cache, expected);
  }
}

}  // namespace
}  // namespace essor::kernels
