#include "common/float4.h"

#include <cmath>

#include "gtest/gtest.h"

namespace essor {
namespace {

// All 16 codes against the table of the specification.
TEST(Float4Test, E2M1HasTheValuesOfItsTable) {
  constexpr float kMagnitudes[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  for (uint8_t code = 0; code < 16; ++code) {
    const float value = ToFloat(Float4E2M1{code});
    EXPECT_EQ(std::abs(value), kMagnitudes[code % 8]) << int{code};
    EXPECT_EQ(std::signbit(value), code >= 8) << int{code};
  }
}

TEST(Float4Test, OffsetIntegersBeginAtMinusEight) {
  for (uint8_t code = 0; code < 16; ++code) EXPECT_EQ(ToFloat(OffsetInt4{code}), code - 8);
}

}  // namespace
}  // namespace essor
