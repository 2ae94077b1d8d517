#include <bit>
#include <cmath>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "common/float16.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/mapped_file.h"
#include "model/checkpoint/quant_blocks.h"
#include "model/checkpoint/quantize.h"
#include "model/checkpoint/safetensors_header.h"

namespace essor::model {
namespace {

using ::testing::HasSubstr;

// Made by tests/data/gguf/make_quant_goldens.py.
class Goldens {
 public:
  Goldens()
      : path_(std::string(ESSOR_SOURCE_DIR) + "/tests/data/gguf/quant_goldens.safetensors"),
        file_(MappedFile::Open(path_).value()),
        entries_(ParseSafetensors(file_->bytes(), path_).value()) {}

  TensorView Get(const std::string& name) const {
    for (const TensorEntry& entry : entries_) {
      if (entry.view.name == name) return entry.view;
    }
    ADD_FAILURE() << "no golden " << name;
    return {};
  }
  // The golden bytes `name` as blocks of `dtype`.
  TensorView Blocks(const std::string& name, DType dtype) const {
    TensorView view = Get(name);
    view.dtype = dtype;
    const DTypeInfo& info = InfoOf(dtype);
    view.shape = {view.data.size() / info.block_bytes * info.block_elements};
    return view;
  }
  std::vector<float> Values(const std::string& name) const {
    const TensorView view = Get(name);
    std::vector<float> values(view.data.size() / 4);
    std::memcpy(values.data(), view.data.data(), view.data.size());
    return values;
  }

 private:
  std::string path_;
  std::unique_ptr<MappedFile> file_;
  std::vector<TensorEntry> entries_;
};

struct QuantisedCase {
  DType dtype;
  std::string name;
};
std::vector<QuantisedCase> QuantisedCases() {
  return {{DType::kQ8_0, "q8_0"},
          {DType::kQ4_0, "q4_0"},
          {DType::kQ4_1, "q4_1"},
          {DType::kQ4_K, "q4_k"},
          {DType::kQ6_K, "q6_k"}};
}

// ggml's own arithmetic is exact before its last rounding for every type, so values are equal, not
// only close.
TEST(DecodeTest, QuantisedBlocksEqualTheReferenceValues) {
  const Goldens goldens;
  for (const QuantisedCase& test : QuantisedCases()) {
    const TensorView blocks = goldens.Blocks(test.name + ".blocks", test.dtype);
    const std::vector<float> expected = goldens.Values(test.name + ".values");
    std::vector<float> actual(expected.size());
    ASSERT_TRUE(DecodeToFloat(blocks, 0, actual).ok());
    EXPECT_EQ(actual, expected) << test.name;
  }
}

TEST(DecodeTest, AnyCutOfAQuantisedTensorGivesTheSameValues) {
  const Goldens goldens;
  std::mt19937 random(7);
  for (const QuantisedCase& test : QuantisedCases()) {
    const TensorView blocks = goldens.Blocks(test.name + ".blocks", test.dtype);
    const std::vector<float> expected = goldens.Values(test.name + ".values");
    for (int round = 0; round < 300; ++round) {
      const size_t first = random() % (expected.size() + 1);
      const size_t count = random() % (expected.size() - first + 1);
      std::vector<float> actual(count, -1.0f);
      ASSERT_TRUE(DecodeToFloat(blocks, first, actual).ok());
      ASSERT_EQ(actual,
                std::vector<float>(expected.begin() + first, expected.begin() + first + count))
          << test.name << " from " << first << " count " << count;
    }
  }
}

TEST(DecodeTest, EveryHalfConvertsAsTheScalarConversionDoes) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const uint32_t expected = std::bit_cast<uint32_t>(ToFloat(Float16{half}));
    ASSERT_EQ(std::bit_cast<uint32_t>(HalfToFloat(half)), expected) << bits;
  }
}

TensorView PlainTensor(DType dtype, std::span<const std::byte> data) {
  return {.name = "w",
          .file = "file",
          .dtype = dtype,
          .shape = {data.size() / InfoOf(dtype).block_bytes},
          .data = data};
}

TEST(DecodeTest, PlainTypesDecodeFromUnalignedBytes) {
  const std::vector<float> values = {0.0f, -1.5f, 3.0f, 0x1p-20f, 65504.0f};
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    const uint32_t width = InfoOf(dtype).block_bytes;
    std::vector<std::byte> bytes(1 + values.size() * width);
    std::vector<float> expected;
    for (size_t i = 0; i < values.size(); ++i) {
      const uint16_t half =
          dtype == DType::kF16 ? ToFloat16(values[i]).bits : ToBFloat16(values[i]).bits;
      const void* const from = dtype == DType::kF32 ? static_cast<const void*>(&values[i]) : &half;
      std::memcpy(bytes.data() + 1 + i * width, from, width);
      expected.push_back(dtype == DType::kF32   ? values[i]
                         : dtype == DType::kF16 ? ToFloat(Float16{half})
                                                : ToFloat(BFloat16{half}));
    }
    const TensorView tensor = PlainTensor(dtype, std::span(bytes).subspan(1));
    std::vector<float> actual(3);
    ASSERT_TRUE(DecodeToFloat(tensor, 2, actual).ok());
    EXPECT_EQ(actual, std::vector<float>(expected.begin() + 2, expected.end()));
  }
}

TEST(DecodeTest, RangesOutsideTheTensorAreRefused) {
  const std::vector<std::byte> bytes(4 * 8);
  const TensorView tensor = PlainTensor(DType::kF32, bytes);
  std::vector<float> out(4);
  for (const uint64_t first : {uint64_t{5}, uint64_t{9}, ~uint64_t{0}, ~uint64_t{0} - 2}) {
    const absl::Status status = DecodeToFloat(tensor, first, out);
    EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
    EXPECT_THAT(std::string(status.message()), HasSubstr("file: tensor w has 8 elements"));
  }
  EXPECT_TRUE(DecodeToFloat(tensor, 8, std::span<float>()).ok());
}

TEST(DecodeTest, IntegerTensorsAreRefused) {
  const std::vector<std::byte> bytes(8);
  std::vector<float> out(1);
  const absl::Status status = DecodeToFloat(PlainTensor(DType::kI64, bytes), 0, out);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("tensor w is i64, not"));
}

// w = scale * value + minimum reproduces the decoded floats exactly, from every block on.
TEST(ReadQ4Test, CanonicalRowsReproduceTheValues) {
  const Goldens goldens;
  for (const QuantisedCase& test : QuantisedCases()) {
    if (test.dtype == DType::kQ8_0 || test.dtype == DType::kQ6_K) continue;
    const TensorView blocks = goldens.Blocks(test.name + ".blocks", test.dtype);
    const std::vector<float> expected = goldens.Values(test.name + ".values");
    for (size_t first = 0; first < expected.size(); first += 32) {
      const size_t count = expected.size() - first;
      std::vector<uint8_t> values(count);
      std::vector<float> scales(count / 32);
      std::vector<float> minima(count / 32);
      ASSERT_TRUE(
          ReadQ4(blocks, first, {.values = values, .scales = scales, .minima = minima}).ok());
      for (size_t i = 0; i < count; ++i) {
        ASSERT_LT(values[i], 16);
        ASSERT_EQ(scales[i / 32] * static_cast<float>(values[i]) + minima[i / 32],
                  expected[first + i])
            << test.name << " element " << first + i;
      }
    }
  }
}

TEST(ReadQ8Test, RowsAreTheStoredBlocks) {
  const Goldens goldens;
  const TensorView blocks = goldens.Blocks("q8_0.blocks", DType::kQ8_0);
  const std::vector<float> expected = goldens.Values("q8_0.values");
  std::vector<int8_t> values(64);
  std::vector<uint16_t> scales(2);
  ASSERT_TRUE(ReadQ8(blocks, 32, {.values = values, .scales = scales}).ok());
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(ToFloat(Float16{scales[i / 32]}) * static_cast<float>(values[i]), expected[32 + i]);
  }
}

TEST(ReadQ8Test, CutBlocksAndOtherTypesAreRefused) {
  const Goldens goldens;
  std::vector<int8_t> values(32);
  std::vector<uint16_t> scales(1);
  const Q8Rows rows = {.values = values, .scales = scales};
  const absl::Status cut = ReadQ8(goldens.Blocks("q8_0.blocks", DType::kQ8_0), 16, rows);
  EXPECT_EQ(cut.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(cut.message()), HasSubstr("cut blocks of 32"));
  const absl::Status type = ReadQ8(goldens.Blocks("q4_1.blocks", DType::kQ4_1), 0, rows);
  EXPECT_EQ(type.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(type.message()), HasSubstr("is q4_1, not q8_0"));
  const absl::Status outside = ReadQ8(goldens.Blocks("q8_0.blocks", DType::kQ8_0), 6 * 32, rows);
  EXPECT_EQ(outside.code(), absl::StatusCode::kOutOfRange);
}

// Half-precision NaN (0x7e00) and infinity (0x7c00) as the scale of the second block.
TEST(DecodeTest, ScalesThatAreNoNumbersAreRefused) {
  const struct {
    DType dtype;
    uint32_t block_bytes;
    uint32_t elements;
    uint32_t scale_at;
  } kCases[] = {{DType::kQ8_0, 34, 32, 0},
                {DType::kQ4_0, 18, 32, 0},
                {DType::kQ4_1, 20, 32, 2},
                {DType::kQ4_K, 144, 256, 0},
                {DType::kQ6_K, 210, 256, 208}};
  for (const auto& test : kCases) {
    for (const uint8_t high : {uint8_t{0x7e}, uint8_t{0x7c}}) {
      SCOPED_TRACE(InfoOf(test.dtype).name);
      std::vector<std::byte> data(2 * test.block_bytes, std::byte{0x11});
      data[test.block_bytes + test.scale_at] = std::byte{0};
      data[test.block_bytes + test.scale_at + 1] = std::byte{high};
      const TensorView tensor{.name = "w",
                              .file = "m.gguf",
                              .dtype = test.dtype,
                              .shape = {2, test.elements},
                              .data = data};
      std::vector<float> out(2 * test.elements);
      ASSERT_TRUE(DecodeToFloat(tensor, 0, std::span(out).first(test.elements)).ok());
      EXPECT_THAT(std::string(DecodeToFloat(tensor, 0, out).message()),
                  HasSubstr("m.gguf: tensor w: the scale of the block at element "));
      const size_t blocks = out.size() / 32;
      std::vector<uint8_t> values(out.size());
      std::vector<float> scales(blocks);
      std::vector<float> minima(blocks);
      absl::Status packed = absl::InvalidArgumentError("the scale of the block");
      if (test.dtype == DType::kQ8_0) {
        std::vector<int8_t> signed_values(out.size());
        std::vector<uint16_t> halves(blocks);
        packed = ReadQ8(tensor, 0, {.values = signed_values, .scales = halves});
      } else if (test.dtype != DType::kQ6_K) {
        packed = ReadQ4(tensor, 0, {.values = values, .scales = scales, .minima = minima});
      }
      EXPECT_THAT(std::string(packed.message()), HasSubstr("the scale of the block"));
    }
  }
}

TEST(EncodeTest, Q8BlocksEqualTheReferenceQuantiser) {
  const Goldens goldens;
  const std::vector<float> source = goldens.Values("q8_0.source");
  const TensorView expected = goldens.Get("q8_0.quantised");
  std::vector<std::byte> actual(expected.data.size());
  ASSERT_TRUE(EncodeFromFloat(DType::kQ8_0, source, actual).ok());
  EXPECT_TRUE(std::equal(actual.begin(), actual.end(), expected.data.begin()));
}

TEST(EncodeTest, Q8RefusesWhatItCannotHold) {
  for (const float bad : {std::nanf(""), INFINITY, -INFINITY, 1e7f}) {
    std::vector<float> values(32, 1.0f);
    values[31] = bad;
    std::vector<std::byte> out(34);
    const absl::Status status = EncodeFromFloat(DType::kQ8_0, values, out);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_THAT(std::string(status.message()), HasSubstr("q8_0 cannot hold"));
  }
}

TEST(EncodeTest, ValuesTooSmallForAScaleBecomeZero) {
  const std::vector<float> values(32, 1e-42f);  // 1 / scale is infinite
  std::vector<std::byte> out(34, std::byte{1});
  ASSERT_TRUE(EncodeFromFloat(DType::kQ8_0, values, out).ok());
  EXPECT_THAT(out, testing::Each(std::byte{0}));
}

}  // namespace
}  // namespace essor::model
