// Caches of kFp8 and kInt8 (common/kv_type.h): what is stored, what rounding costs, and that whole
// blocks can be copied. attention_test.cc and latent_attention_test.cc compare results with the
// plain loops' and have the same bits in every division into steps.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

#include "common/float16.h"
#include "common/float8.h"
#include "gtest/gtest.h"
#include "kernels/attention.h"
#include "kernels/cpu/row_test_support.h"
#include "kernels/latent_attention.h"

namespace essor::kernels {
namespace {

constexpr KvType kQuantisedTypes[] = {KvType::kFp8, KvType::kInt8};

class QuantisedCacheTest : public EachIsaTest {};
INSTANTIATE_TEST_SUITE_P(Isa, QuantisedCacheTest, ::testing::ValuesIn(kAllIsas), IsaTestName);

// What is stored of a vector, from the definition in common/kv_type.h.
struct Stored {
  std::vector<uint8_t> codes;
  float scale = 0;
};

Stored StoredOf(KvType type, std::span<const float> values) {
  Stored stored;
  if (type == KvType::kFp8) {
    for (const float value : values) stored.codes.push_back(ToFloat8E4M3(value).bits);
    return stored;
  }
  float largest = 0;
  bool finite = true;
  for (const float value : values) {
    finite = finite && std::isfinite(value);
    largest = std::max(largest, std::abs(value));
  }
  stored.scale = finite ? largest / 127.0f : std::nanf("");
  if (stored.scale < std::numeric_limits<float>::min()) stored.scale = 0;
  for (const float value : values) {
    const float quotient = stored.scale > 0 ? value / stored.scale : 0.0f;
    stored.codes.push_back(static_cast<uint8_t>(static_cast<int8_t>(std::nearbyint(quotient))));
  }
  return stored;
}

// A NaN is expected as any NaN.
void ExpectScale(const std::byte* at, float expected) {
  float scale = 0;
  std::memcpy(&scale, at, sizeof(scale));
  if (std::isnan(expected)) {
    EXPECT_TRUE(std::isnan(scale));
  } else {
    EXPECT_EQ(scale, expected);
  }
}

// Vectors of `dim` with everything that rounding treats in its own way.
std::vector<float> RandomVectors(size_t count, uint32_t dim, uint32_t seed) {
  auto values = RandomFloats(count * dim, seed);
  const float infinity = std::numeric_limits<float>::infinity();
  values[0] = std::nanf("");
  values[dim] = -infinity;
  values[2 * dim] = 500.0f;
  values[2 * dim + 1] = 19.0f;  // a tie of e4m3
  values[2 * dim + 2] = -0x1p-9f;
  std::fill_n(values.begin() + 3 * dim, dim, 0.0f);
  std::fill_n(values.begin() + 4 * dim, dim, 1e-37f);
  values[5 * dim + dim - 1] = -3e38f;
  return values;
}

TEST_P(QuantisedCacheTest, WriteKvStoresVectorsAndScalesInTheirSlotsOnly) {
  constexpr uint32_t kDim = 21;
  constexpr uint32_t kBlock = 4;
  constexpr uint32_t kHeads = 2;
  constexpr uint32_t kRows = 6;
  constexpr uint32_t kElements = kHeads * kBlock * kDim;
  const auto k = RandomVectors(kRows * kHeads, kDim, 1);
  const auto v = RandomVectors(kRows * kHeads, kDim, 2);
  const std::vector<uint32_t> table = {3, 1, 4};
  const std::vector<SequenceRows> sequences = {
      {.first_row = 0, .num_rows = kRows, .context_tokens = 3, .block_table = table.data()}};
  for (const KvType type : kQuantisedTypes) {
    PagedKv cache{.k = nullptr,
                  .v = nullptr,
                  .type = type,
                  .num_blocks = 5,
                  .block_tokens = kBlock,
                  .num_kv_heads = kHeads,
                  .head_dim = kDim};
    ASSERT_EQ(cache.block_bytes(), kElements + kHeads * kBlock * ScaleBytes(type));
    std::vector<std::byte> keys(5 * cache.block_bytes(), std::byte{0x55});
    std::vector<std::byte> values = keys;
    cache.k = keys.data();
    cache.v = values.data();
    WriteKv({.cache = cache,
             .k = k.data(),
             .v = v.data(),
             .k_stride = kHeads * kDim,
             .v_stride = kHeads * kDim,
             .sequences = sequences},
            *MakeStream(3));
    for (uint32_t i = 0; i < kRows; ++i) {
      for (uint32_t h = 0; h < kHeads; ++h) {
        const size_t block = table[(3 + i) / kBlock] * cache.block_bytes();
        const uint32_t slot = h * kBlock + (3 + i) % kBlock;
        const size_t vector = (i * kHeads + h) * kDim;
        const Stored key = StoredOf(type, std::span(k).subspan(vector, kDim));
        const Stored value = StoredOf(type, std::span(v).subspan(vector, kDim));
        for (uint32_t d = 0; d < kDim; ++d) {
          std::byte& key_at = keys[block + (h * kDim + d) * kBlock + (3 + i) % kBlock];
          std::byte& value_at = values[block + slot * kDim + d];
          EXPECT_EQ(key_at, std::byte{key.codes[d]}) << NameOf(type) << " " << i << " " << d;
          EXPECT_EQ(value_at, std::byte{value.codes[d]}) << NameOf(type) << " " << i << " " << d;
          key_at = value_at = std::byte{0x55};
        }
        if (type != KvType::kInt8) continue;
        const size_t scale = block + kElements + slot * sizeof(float);
        ExpectScale(keys.data() + scale, key.scale);
        ExpectScale(values.data() + scale, value.scale);
        std::fill_n(keys.begin() + scale, sizeof(float), std::byte{0x55});
        std::fill_n(values.begin() + scale, sizeof(float), std::byte{0x55});
      }
    }
    // All that should have been written has been put back.
    EXPECT_EQ(std::count(keys.begin(), keys.end(), std::byte{0x55}), std::ssize(keys));
    EXPECT_EQ(std::count(values.begin(), values.end(), std::byte{0x55}), std::ssize(values));
  }
}

TEST_P(QuantisedCacheTest, WriteLatentsLeavesRotatedKeysInBFloat16) {
  constexpr uint32_t kLatent = 21;
  constexpr uint32_t kRope = 6;
  constexpr uint32_t kBlock = 4;
  constexpr uint32_t kRows = 6;
  const auto latents = RandomVectors(kRows, kLatent, 1);
  const auto rope_keys = RandomFloats(kRows * kRope, 2);
  const std::vector<uint32_t> table = {3, 1, 4};
  const std::vector<SequenceRows> sequences = {
      {.first_row = 0, .num_rows = kRows, .context_tokens = 3, .block_table = table.data()}};
  for (const KvType type : kQuantisedTypes) {
    const size_t row_bytes = type == KvType::kInt8 ? 40 : 36;
    std::vector<std::byte> rows(5 * kBlock * row_bytes, std::byte{0x55});
    const PagedLatents cache{.data = rows.data(),
                             .type = type,
                             .num_blocks = 5,
                             .block_tokens = kBlock,
                             .latent_dim = kLatent,
                             .rope_dim = kRope};
    ASSERT_EQ(cache.row_bytes(), row_bytes);
    WriteLatents({.cache = cache,
                  .latents = latents.data(),
                  .rope_keys = rope_keys.data(),
                  .sequences = sequences},
                 *MakeStream(3));
    for (uint32_t i = 0; i < kRows; ++i) {
      const uint32_t token = table[(3 + i) / kBlock] * kBlock + (3 + i) % kBlock;
      std::byte* at = rows.data() + token * row_bytes;
      const Stored latent = StoredOf(type, std::span(latents).subspan(i * kLatent, kLatent));
      std::vector<std::byte> expected;
      if (type == KvType::kInt8) {
        ExpectScale(at, latent.scale);
        at = std::fill_n(at, sizeof(float), std::byte{0x55});
      }
      for (uint32_t d = 0; d < kRope; ++d) {
        const uint16_t bits = ToBFloat16(rope_keys[i * kRope + d]).bits;
        expected.push_back(std::byte(bits & 0xff));
        expected.push_back(std::byte(bits >> 8));
      }
      for (const uint8_t code : latent.codes) expected.push_back(std::byte{code});
      EXPECT_TRUE(std::equal(expected.begin(), expected.end(), at)) << NameOf(type) << " row " << i;
      std::fill_n(at, expected.size(), std::byte{0x55});
    }
    EXPECT_EQ(std::count(rows.begin(), rows.end(), std::byte{0x55}), std::ssize(rows));
  }
}

// One sequence of one KV head, and the results of all its rows.
struct Attended {
  static constexpr uint32_t kTokens = 200;
  static constexpr uint32_t kHeads = 2;
  static constexpr uint32_t kDim = 64;
  static constexpr uint32_t kBlock = 16;
  static constexpr uint32_t kBlocks = 16;

  std::vector<float> q = RandomFloats(kTokens * kHeads * kDim, 1, 1.5f);
  std::vector<float> k = RandomFloats(kTokens * kDim, 2);
  std::vector<float> v = RandomFloats(kTokens * kDim, 3);
  std::vector<std::byte> keys;
  std::vector<std::byte> values;
  std::vector<uint32_t> table = std::vector<uint32_t>(kBlocks);

  Attended() { std::iota(table.begin(), table.end(), 0u); }

  static float Scale() { return 1.0f / std::sqrt(static_cast<float>(kDim)); }
  PagedKv Cache(KvType type) {
    PagedKv cache{.k = nullptr,
                  .v = nullptr,
                  .type = type,
                  .num_blocks = kBlocks,
                  .block_tokens = kBlock,
                  .num_kv_heads = 1,
                  .head_dim = kDim};
    keys.resize(kBlocks * cache.block_bytes(), NanByte(type));
    values.resize(keys.size(), NanByte(type));
    cache.k = keys.data();
    cache.v = values.data();
    return cache;
  }
  SequenceRows Rows() const {
    return {.first_row = 0, .num_rows = kTokens, .context_tokens = 0, .block_table = table.data()};
  }

  void Write(KvType type, Stream& stream) {
    const SequenceRows rows = Rows();
    WriteKv({.cache = Cache(type),
             .k = k.data(),
             .v = v.data(),
             .k_stride = kDim,
             .v_stride = kDim,
             .sequences = {&rows, 1}},
            stream);
  }
  std::vector<float> Attend(KvType type, Stream& stream) {
    const SequenceRows rows = Rows();
    std::vector<float> y(q.size());
    Attention({.cache = Cache(type),
               .q = q.data(),
               .q_stride = kHeads * kDim,
               .num_heads = kHeads,
               .scale = Scale(),
               .sliding_window = 0,
               .sequences = {&rows, 1},
               .y = y.data()},
              stream);
    return y;
  }
};

// The square of what rounding does to a value, on average: a twelfth of the square of its step.
double RoundingSquare(KvType type, double value, double largest) {
  double step = largest / 127;
  if (type == KvType::kFp8) {
    step =
        std::abs(value) < 0x1p-6 ? 0x1p-9 : std::exp2(std::floor(std::log2(std::abs(value))) - 3);
  }
  return step * step / 12;
}

double LargestOf(const float* values) {
  double largest = 0;
  for (uint32_t d = 0; d < Attended::kDim; ++d) {
    largest = std::max<double>(largest, std::abs(values[d]));
  }
  return largest;
}

// Sums of squares over the results of a query: of the error, and of the error that is expected.
struct Squares {
  double actual = 0;
  double expected = 0;
};

// y = sum w_s v_s with w the softmax of the scores c * q . k_s. To first order, with independent
// errors, the square of the error of y[d] is sum over s of w_s^2 * (square of v_s[d]'s error +
// (v_s[d] - y[d])^2 * square of the score's error), the last c^2 * sum over j of q[j]^2 * square of
// k_s[j]'s error.
void AddQuery(KvType type, const Attended& data, size_t row, const float* q, const float* result,
              Squares* squares) {
  constexpr uint32_t kDim = Attended::kDim;
  const double c = Attended::Scale();
  std::vector<double> weights;
  std::vector<double> score_squares;
  double sum = 0;
  for (size_t s = 0; s <= row; ++s) {
    const float* k = data.k.data() + s * kDim;
    const double largest = LargestOf(k);
    double score = 0;
    double square = 0;
    for (uint32_t d = 0; d < kDim; ++d) {
      score += c * q[d] * k[d];
      square += c * c * q[d] * q[d] * RoundingSquare(type, k[d], largest);
    }
    weights.push_back(std::exp(score));
    score_squares.push_back(square);
    sum += weights.back();
  }
  std::vector<double> largest_values;
  for (size_t s = 0; s <= row; ++s) {
    largest_values.push_back(LargestOf(data.v.data() + s * kDim));
    weights[s] /= sum;
  }
  for (uint32_t d = 0; d < kDim; ++d) {
    double y = 0;
    for (size_t s = 0; s <= row; ++s) y += weights[s] * data.v[s * kDim + d];
    for (size_t s = 0; s <= row; ++s) {
      const double v = data.v[s * kDim + d];
      squares->expected +=
          weights[s] * weights[s] *
          (RoundingSquare(type, v, largest_values[s]) + (v - y) * (v - y) * score_squares[s]);
    }
    squares->actual += (result[d] - y) * (result[d] - y);
  }
}

// The root mean square error against attention over what was given to WriteKv, in double, is the
// one that the steps of the types explain, within 15 % (25,600 results, which share 200 keys).
TEST_P(QuantisedCacheTest, TheErrorIsThatOfTheRounding) {
  for (const KvType type : kQuantisedTypes) {
    auto stream = MakeStream(2);
    Attended data;
    data.Write(type, *stream);
    const std::vector<float> y = data.Attend(type, *stream);
    Squares squares;
    for (size_t i = 0; i < Attended::kTokens * Attended::kHeads; ++i) {
      AddQuery(type, data, i / Attended::kHeads, data.q.data() + i * Attended::kDim,
               y.data() + i * Attended::kDim, &squares);
    }
    const double ratio = std::sqrt(squares.actual / squares.expected);
    EXPECT_GT(ratio, 0.85) << NameOf(type);
    EXPECT_LT(ratio, 1.15) << NameOf(type);
  }
}

// A row that is broken shows in those that see it, and in no other.
TEST_P(QuantisedCacheTest, WhatIsNoNumberShowsInTheRowsThatSeeIt) {
  constexpr uint32_t kBroken = 70;
  for (const KvType type : kQuantisedTypes) {
    for (const bool key : {true, false}) {
      auto stream = MakeStream(2);
      Attended data;
      const size_t at = kBroken * Attended::kDim + 5;
      (key ? data.k : data.v)[at] = key ? std::nanf("") : -std::numeric_limits<float>::infinity();
      data.Write(type, *stream);
      const std::vector<float> y = data.Attend(type, *stream);
      for (size_t i = 0; i < y.size(); ++i) {
        const size_t row = i / (Attended::kHeads * Attended::kDim);
        const bool dim_hit = key || type == KvType::kInt8 || i % Attended::kDim == 5;
        ASSERT_EQ(std::isnan(y[i]), row >= kBroken && dim_hit)
            << NameOf(type) << " row " << row << " key " << key;
      }
    }
  }
}

// A block's bytes are all there is of it.
TEST_P(QuantisedCacheTest, BlocksThatAreCopiedGiveTheSameBits) {
  for (const KvType type : kKvTypes) {
    auto stream = MakeStream(2);
    Attended data;
    data.Write(type, *stream);
    const std::vector<float> before = data.Attend(type, *stream);
    const size_t bytes = data.Cache(type).block_bytes();
    for (std::vector<std::byte>* cache : {&data.keys, &data.values}) {
      std::copy_n(cache->begin() + 4 * bytes, bytes, cache->begin() + 15 * bytes);
      std::fill_n(cache->begin() + 4 * bytes, bytes, NanByte(type));
    }
    data.table[4] = 15;
    EXPECT_EQ(data.Attend(type, *stream), before) << NameOf(type);
  }
}

}  // namespace
}  // namespace essor::kernels
