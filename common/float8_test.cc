#include "common/float8.h"

#include <cmath>
#include <limits>

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

// Against the definition of rounding: every code, every middle between neighbours and the floats
// beside it.
TEST(Float8Test, ToE4M3RoundsToNearestEven) {
  const auto code_of = [](float value) { return static_cast<int>(ToFloat8E4M3(value).bits); };
  for (int code = 0; code < 0x7e; ++code) {
    const float below = ToFloat(Float8E4M3{static_cast<uint8_t>(code)});
    const float above = ToFloat(Float8E4M3{static_cast<uint8_t>(code + 1)});
    const float middle = (below + above) / 2;  // exact
    EXPECT_EQ(code_of(below), code);
    EXPECT_EQ(code_of(-below), code | 0x80);
    EXPECT_EQ(code_of(middle), code % 2 == 0 ? code : code + 1);
    EXPECT_EQ(code_of(-middle), (code % 2 == 0 ? code : code + 1) | 0x80);
    EXPECT_EQ(code_of(std::nextafter(middle, 0.0f)), code);
    EXPECT_EQ(code_of(std::nextafter(middle, 1000.0f)), code + 1);
  }
  EXPECT_EQ(code_of(1e-40f), 0);
}

TEST(Float8Test, ToE4M3SaturatesAndKeepsWhatIsNoNumberVisible) {
  for (const float value : {448.0f, 449.0f, 464.0f, 500.0f, 3.4e38f}) {
    EXPECT_EQ(ToFloat(ToFloat8E4M3(value)), 448.0f) << value;
    EXPECT_EQ(ToFloat(ToFloat8E4M3(-value)), -448.0f) << value;
  }
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float value : {infinity, -infinity, std::nanf(""), -std::nanf("")}) {
    EXPECT_EQ(ToFloat8E4M3(value).bits, 0x7f);
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
