#include "common/float16.h"

#include <cmath>
#include <limits>

#include "gtest/gtest.h"

namespace essor {
namespace {

TEST(BFloat16Test, RoundsToNearestEven) {
  EXPECT_EQ(ToBFloat16(1.0f).bits, 0x3f80);
  EXPECT_EQ(ToBFloat16(std::bit_cast<float>(0x3f808000u)).bits, 0x3f80);  // tie, even below
  EXPECT_EQ(ToBFloat16(std::bit_cast<float>(0x3f818000u)).bits, 0x3f82);  // tie, even above
  EXPECT_EQ(ToBFloat16(std::bit_cast<float>(0x3f808001u)).bits, 0x3f81);
  EXPECT_TRUE(std::isnan(ToFloat(ToBFloat16(std::numeric_limits<float>::quiet_NaN()))));
}

// Every half value must survive the way to float and back: the conversion is exact in one
// direction, so any difference is an error of either.
TEST(Float16Test, AllFiniteValuesRoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000u; ++bits) {
    const Float16 half{static_cast<uint16_t>(bits)};
    const float value = ToFloat(half);
    if (std::isnan(value)) continue;
    EXPECT_EQ(ToFloat16(value).bits, half.bits) << bits;
  }
}

TEST(Float16Test, KnownValuesAndLimits) {
  EXPECT_EQ(ToFloat(Float16{0x3c00}), 1.0f);
  EXPECT_EQ(ToFloat(Float16{0x0001}), std::ldexp(1.0f, -24));
  EXPECT_EQ(ToFloat(Float16{0x7bff}), 65504.0f);
  EXPECT_EQ(ToFloat16(65520.0f).bits, 0x7c00);  // rounds up to infinity
  EXPECT_EQ(ToFloat16(65519.0f).bits, 0x7bff);
  EXPECT_EQ(ToFloat16(std::ldexp(1.0f, -25)).bits, 0x0000);  // tie to even
  EXPECT_TRUE(std::isnan(ToFloat(ToFloat16(std::nanf("")))));
}

}  // namespace
}  // namespace essor
