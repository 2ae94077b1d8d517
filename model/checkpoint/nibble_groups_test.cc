#include "model/checkpoint/nibble_groups.h"

#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace essor::model {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Owned {
  std::vector<std::byte> bytes;
  TensorView view;
};

template <typename T>
Owned Tensor(const std::string& name, DType dtype, std::vector<uint64_t> shape,
             const std::vector<T>& values) {
  Owned tensor;
  tensor.bytes.resize(values.size() * sizeof(T));
  std::memcpy(tensor.bytes.data(), values.data(), tensor.bytes.size());
  tensor.view = {.name = name,
                 .file = "f.safetensors",
                 .dtype = dtype,
                 .shape = std::move(shape),
                 .data = tensor.bytes};
  return tensor;
}

// Two experts of 3 rows with 2 groups; byte i of a row holds the codes of columns 2 i and 2 i + 1.
Owned Blocks() {
  std::vector<uint8_t> bytes(2 * 3 * 2 * 16);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 7 + i / 16);
  return Tensor("x_blocks", DType::kU8, {2, 3, 2, 16}, bytes);
}

Owned Exponents(std::vector<uint8_t> values) {
  return Tensor("x_scales", DType::kU8, {2, 3, 2}, values);
}

constexpr float kE2M1[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};

TEST(NibbleGroupsTest, Mxfp4IsCodeTimesPowerOfTwo) {
  const Owned blocks = Blocks();
  const Owned scales = Exponents({127, 128, 129, 130, 131, 132, 126, 125, 124, 123, 122, 121});
  const auto weight = TakeAsNibbles(blocks.view, DType::kF4E2M1);
  ASSERT_TRUE(weight.ok()) << weight.status();
  EXPECT_THAT(weight->shape, ElementsAre(2, 3, 64));
  ASSERT_TRUE(CheckNibbleScales(*weight, scales.view).ok());
  constexpr float kScales[] = {1, 2, 4, 8, 16, 32, 0.5f, 0.25f, 0.125f, 0x1p-4f, 0x1p-5f, 0x1p-6f};
  for (const uint64_t row : {0u, 2u, 3u, 5u}) {
    for (const uint64_t first : {0u, 32u}) {
      std::vector<float> out(64 - first);
      ASSERT_TRUE(DecodeNibbleRow(*weight, scales.view,
                                  {.row = row, .first_col = first, .end_col = 64}, out)
                      .ok());
      for (uint64_t c = first; c < 64; ++c) {
        const auto byte = std::to_integer<uint32_t>(blocks.bytes[row * 32 + c / 2]);
        const uint32_t code = c % 2 == 0 ? byte & 15 : byte >> 4;
        ASSERT_EQ(out[c - first], kE2M1[code] * kScales[row * 2 + c / 32]) << row << " " << c;
      }
    }
  }
}

TEST(NibbleGroupsTest, PackedIntegersBeginAtTheLowEndOfTheirWord) {
  // Columns 0 .. 7 of group 0 are -8, -7 .. -1; the others 0.
  const Owned packed = Tensor<uint32_t>("x.weight_packed", DType::kI32, {1, 4},
                                        {0x76543210u, 0x88888888u, 0x88888888u, 0xf8888888u});
  const Owned scales = Tensor<float>("x.weight_scale", DType::kF32, {1, 1}, {0.5f});
  const auto weight = TakeAsNibbles(packed.view, DType::kOffsetI4);
  ASSERT_TRUE(weight.ok()) << weight.status();
  EXPECT_THAT(weight->shape, ElementsAre(1, 32));
  std::vector<float> out(32);
  ASSERT_TRUE(CheckNibbleScales(*weight, scales.view).ok());
  ASSERT_TRUE(
      DecodeNibbleRow(*weight, scales.view, {.row = 0, .first_col = 0, .end_col = 32}, out).ok());
  for (uint32_t c = 0; c < 8; ++c) EXPECT_EQ(out[c], 0.5f * (static_cast<float>(c) - 8));
  EXPECT_EQ(out[8], 0);
  EXPECT_EQ(out[31], 3.5f);

  EXPECT_EQ(PackedShapeName("x.weight_packed"), "x.weight_shape");
  const Owned shape = Tensor<int64_t>("x.weight_shape", DType::kI64, {2}, {1, 32});
  EXPECT_TRUE(CheckPackedShape(*weight, shape.view).ok());
  const Owned narrow = Tensor<int32_t>("x.weight_shape", DType::kI32, {2}, {1, 32});
  EXPECT_TRUE(CheckPackedShape(*weight, narrow.view).ok());
  const Owned other = Tensor<int64_t>("x.weight_shape", DType::kI64, {2}, {1, 30});
  EXPECT_THAT(CheckPackedShape(*weight, other.view).message(),
              AllOf(HasSubstr("says [1, 30]"), HasSubstr("holds [1, 32]")));
  EXPECT_THAT(CheckPackedShape(*weight, scales.view).message(), HasSubstr("two whole numbers"));
}

TEST(NibbleGroupsTest, RefusesOtherTypesAndShapes) {
  const Owned blocks = Blocks();
  Owned bad = Blocks();
  bad.view.shape = {2, 3, 32};
  EXPECT_THAT(TakeAsNibbles(bad.view, DType::kF4E2M1).status().message(),
              AllOf(HasSubstr("f.safetensors: tensor x_blocks"), HasSubstr("[2, 3, 32]")));
  bad.view.dtype = DType::kBF16;
  bad.view.shape = {2, 3, 2, 16};
  EXPECT_FALSE(TakeAsNibbles(bad.view, DType::kF4E2M1).ok());
  EXPECT_FALSE(TakeAsNibbles(blocks.view, DType::kOffsetI4).ok());
  const Owned narrow = Tensor<uint32_t>("x", DType::kI32, {1, 3}, {0, 0, 0});
  EXPECT_THAT(TakeAsNibbles(narrow.view, DType::kOffsetI4).status().message(),
              HasSubstr("groups of 32"));

  const auto weight = TakeAsNibbles(blocks.view, DType::kF4E2M1);
  Owned scales = Exponents(std::vector<uint8_t>(12, 127));
  scales.view.shape = {2, 2, 3};
  EXPECT_THAT(CheckNibbleScales(*weight, scales.view).message(),
              AllOf(HasSubstr("[2, 2, 3]"), HasSubstr("have scales [2, 3, 2]")));
  scales.view.dtype = DType::kF32;
  EXPECT_THAT(CheckNibbleScales(*weight, scales.view).message(), HasSubstr("type f32"));
}

TEST(NibbleGroupsTest, RefusesNanAndNegativeScales) {
  const Owned blocks = Blocks();
  const auto weight = TakeAsNibbles(blocks.view, DType::kF4E2M1);
  std::vector<uint8_t> exponents(12, 127);
  exponents[3] = 255;
  const Owned scales = Exponents(exponents);
  std::vector<float> out(64);
  EXPECT_TRUE(
      DecodeNibbleRow(*weight, scales.view, {.row = 0, .first_col = 0, .end_col = 64}, out).ok());
  EXPECT_THAT(DecodeNibbleRow(*weight, scales.view, {.row = 1, .first_col = 0, .end_col = 64}, out)
                  .message(),
              AllOf(HasSubstr("tensor x_scales"), HasSubstr("scale 3 is nan")));
  const Owned packed = Tensor<uint32_t>("x.weight_packed", DType::kI32, {1, 4}, {0, 0, 0, 0});
  const auto integers = TakeAsNibbles(packed.view, DType::kOffsetI4);
  const Owned negative = Tensor<float>("x.weight_scale", DType::kF32, {1, 1}, {-1.0f});
  out.resize(32);
  EXPECT_THAT(
      DecodeNibbleRow(*integers, negative.view, {.row = 0, .first_col = 0, .end_col = 32}, out)
          .message(),
      HasSubstr("scale 0 is -1"));
}

TEST(NibbleGroupsTest, RefusesPartsThatCutGroupsOrLeaveTheTensor) {
  const Owned blocks = Blocks();
  const auto weight = TakeAsNibbles(blocks.view, DType::kF4E2M1);
  std::vector<uint8_t> codes(8);
  EXPECT_THAT(ReadNibbleCodes(*weight, {.row = 0, .first_col = 16, .end_col = 32}, codes).message(),
              HasSubstr("cut groups of 32"));
  codes.resize(16);
  EXPECT_TRUE(absl::IsOutOfRange(
      ReadNibbleCodes(*weight, {.row = 6, .first_col = 0, .end_col = 32}, codes)));
  EXPECT_TRUE(absl::IsOutOfRange(
      ReadNibbleCodes(*weight, {.row = 0, .first_col = 64, .end_col = 96}, codes)));
}

}  // namespace
}  // namespace essor::model
