#include "model/checkpoint/fp8_blocks.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "common/float8.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace essor::model {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

struct Owned {
  std::vector<std::byte> bytes;
  TensorView view;
};

Owned Codes(std::vector<uint64_t> shape) {
  Owned tensor;
  uint64_t count = 1;
  for (const uint64_t size : shape) count *= size;
  tensor.bytes.resize(count);
  for (uint64_t i = 0; i < count; ++i) tensor.bytes[i] = static_cast<std::byte>(i % 127);
  tensor.view = {.name = "w.weight",
                 .file = "f.safetensors",
                 .dtype = DType::kF8E4M3,
                 .shape = std::move(shape),
                 .data = tensor.bytes};
  return tensor;
}

Owned Scales(std::vector<uint64_t> shape, const std::vector<float>& values) {
  Owned tensor;
  tensor.bytes.resize(values.size() * 4);
  std::memcpy(tensor.bytes.data(), values.data(), tensor.bytes.size());
  tensor.view = {.name = "w.weight_scale_inv",
                 .file = "f.safetensors",
                 .dtype = DType::kF32,
                 .shape = std::move(shape),
                 .data = tensor.bytes};
  return tensor;
}

TEST(Fp8BlocksTest, ScalesAreThoseOfRowAndColumn) {
  constexpr uint64_t kRows = 144;
  constexpr uint64_t kCols = 300;
  const Owned weight = Codes({kRows, kCols});
  const Owned scales = Scales({2, 3}, {1, 2, 3, 4, 5, 6});
  ASSERT_TRUE(CheckFp8Scales(weight.view, scales.view).ok());
  EXPECT_EQ(Fp8ScaleName("w.weight"), "w.weight_scale_inv");
  for (const uint64_t row : {0u, 127u, 128u, 143u}) {
    for (const uint64_t first : {0u, 100u, 128u, 299u}) {
      std::vector<float> out(kCols - first);
      ASSERT_TRUE(DecodeFp8Row(weight.view, scales.view, {row, first, kCols}, out).ok());
      for (uint64_t c = first; c < kCols; ++c) {
        const auto code = static_cast<uint8_t>((row * kCols + c) % 127);
        const auto scale = static_cast<float>(1 + row / 128 * 3 + c / 128);
        ASSERT_EQ(out[c - first], scale * ToFloat(Float8E4M3{code})) << row << " " << c;
      }
    }
  }
}

// Blocks start anew with every matrix of a stack.
TEST(Fp8BlocksTest, StacksHaveScalesPerMatrix) {
  const Owned weight = Codes({2, 130, 1});
  const Owned scales = Scales({2, 2, 1}, {1, 2, 3, 4});
  ASSERT_TRUE(CheckFp8Scales(weight.view, scales.view).ok());
  const std::pair<uint64_t, float> kExpected[] = {{0, 1},   {127, 1}, {128, 2}, {129, 2},
                                                  {130, 3}, {257, 3}, {258, 4}, {259, 4}};
  for (const auto& [row, scale] : kExpected) {
    float out = 0;
    ASSERT_TRUE(ReadFp8Scales(weight.view, scales.view, {row, 0, 1}, {&out, 1}).ok());
    EXPECT_EQ(out, scale) << row;
  }
}

TEST(Fp8BlocksTest, PowersOfTwoAsE8M0) {
  const Owned weight = Codes({1, 2});
  Owned scales = Scales({1, 1}, {1});
  scales.bytes = {std::byte{120}};
  scales.view.data = scales.bytes;
  scales.view.dtype = DType::kF8E8M0;
  ASSERT_TRUE(CheckFp8Scales(weight.view, scales.view).ok());
  float out = 0;
  ASSERT_TRUE(ReadFp8Scales(weight.view, scales.view, {0, 0, 2}, {&out, 1}).ok());
  EXPECT_EQ(out, 0x1p-7f);
  scales.bytes[0] = std::byte{0xff};
  const absl::Status nan = ReadFp8Scales(weight.view, scales.view, {0, 0, 2}, {&out, 1});
  EXPECT_THAT(std::string(nan.message()), HasSubstr("scale 0 is nan"));
}

TEST(Fp8BlocksTest, WrongShapesAndTypesAreRefused) {
  const Owned weight = Codes({144, 300});
  for (const std::vector<uint64_t>& shape :
       {std::vector<uint64_t>{3, 5}, {2, 2}, {6}, {1, 2, 3}, {144, 1}}) {
    const absl::Status status = CheckFp8Scales(weight.view, Scales(shape, {1}).view);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("f.safetensors: tensor w.weight_scale_inv: its shape is ["),
                      HasSubstr("blocks of 128 x 128 of w.weight [144, 300] have scales [2, 3]")));
  }
  Owned integers = Scales({2, 3}, {1, 2, 3, 4, 5, 6});
  integers.view.dtype = DType::kI32;
  EXPECT_THAT(std::string(CheckFp8Scales(weight.view, integers.view).message()),
              HasSubstr("type i32 does not hold scales"));
  EXPECT_THAT(std::string(CheckFp8Scales(Codes({300}).view, Scales({3}, {1}).view).message()),
              HasSubstr("tensor w.weight: is f8_e4m3, but its shape [300]"));
}

TEST(Fp8BlocksTest, CodesAreNothingWithoutScales) {
  std::vector<float> out(4);
  const absl::Status status = DecodeToFloat(Codes({2, 2}).view, 0, out);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("tensor w.weight is f8_e4m3, not a type"));
}

TEST(Fp8BlocksTest, BadValuesAreRefused) {
  Owned weight = Codes({1, 200});
  std::vector<float> out(200);
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity(), -1.0f}) {
    const Owned scales = Scales({1, 2}, {1, bad});
    const absl::Status status = DecodeFp8Row(weight.view, scales.view, {0, 0, 200}, out);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("f.safetensors: tensor w.weight_scale_inv: scale 1 is "));
  }
  const Owned scales = Scales({1, 2}, {1, 0});
  ASSERT_TRUE(DecodeFp8Row(weight.view, scales.view, {0, 0, 200}, out).ok());
  EXPECT_EQ(out[199], 0);
  std::vector<uint8_t> codes(201);
  EXPECT_EQ(ReadFp8Codes(weight.view, {1, 0, 1}, std::span(codes).first(1)).code(),
            absl::StatusCode::kOutOfRange);
  EXPECT_EQ(ReadFp8Codes(weight.view, {0, 0, 201}, codes).code(), absl::StatusCode::kOutOfRange);
  weight.bytes[7] = std::byte{0xff};
  EXPECT_THAT(std::string(DecodeFp8Row(weight.view, scales.view, {0, 0, 200}, out).message()),
              HasSubstr("f.safetensors: tensor w.weight: row 0 holds NaN"));
}

}  // namespace
}  // namespace essor::model
