#include "common/float8.h"

#include <cmath>

#include "common/float16.h"
#include "gtest/gtest.h"

namespace essor {
namespace {

// All 256 codes against the definition, term by term.
TEST(Float8Test, E4M3IsSignExponentMantissa) {
  for (int code = 0; code < 256; ++code) {
    const Float8E4M3 value{static_cast<uint8_t>(code)};
    const int exponent = (code >> 3) & 15;
    const int mantissa = code & 7;
    if (exponent == 15 && mantissa == 7) {
      EXPECT_TRUE(IsNan(value)) << code;
      EXPECT_TRUE(std::isnan(ToFloat(value))) << code;
      EXPECT_TRUE(std::isnan(ToFloat(BFloat16{BFloat16BitsOf(value)}))) << code;
      continue;
    }
    const double magnitude =
        exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
    const double expected = code >= 128 ? -magnitude : magnitude;
    EXPECT_EQ(ToFloat(value), expected) << code;
    EXPECT_EQ(std::signbit(ToFloat(value)), code >= 128) << code;
    EXPECT_EQ(ToFloat(BFloat16{BFloat16BitsOf(value)}), expected) << code;
    EXPECT_FALSE(IsNan(value)) << code;
  }
}

TEST(Float8Test, E8M0IsAPowerOfTwo) {
  for (int code = 0; code < 255; ++code) {
    EXPECT_EQ(ToFloat(Float8E8M0{static_cast<uint8_t>(code)}), std::ldexp(1.0, code - 127)) << code;
  }
  EXPECT_TRUE(std::isnan(ToFloat(Float8E8M0{0xff})));
}

}  // namespace
}  // namespace essor
