#include "common/log.h"

#include "gtest/gtest.h"

namespace essor {
namespace {

TEST(LogSafeTest, EscapesWhatCouldForgeALine) {
  EXPECT_EQ(LogSafe("a\nb\"c\\"), "a\\nb\\\"c\\\\");
  EXPECT_EQ(LogSafe("Grüße"), "Grüße");
}

TEST(LogSafeTest, CutsLongText) { EXPECT_EQ(LogSafe("abcdef", 3), "abc..."); }

}  // namespace
}  // namespace essor
