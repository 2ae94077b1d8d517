#include "model/plan/byte_size.h"

#include "gtest/gtest.h"

namespace essor::model {
namespace {

TEST(ByteSizeTest, Parses) {
  EXPECT_EQ(ParseByteSize("80GB").value(), 80'000'000'000u);
  EXPECT_EQ(ParseByteSize("80GiB").value(), 85'899'345'920u);
  EXPECT_EQ(ParseByteSize("80gb").value(), 80'000'000'000u);
  EXPECT_EQ(ParseByteSize("80 GB").value(), 80'000'000'000u);
  EXPECT_EQ(ParseByteSize("1.5TB").value(), 1'500'000'000'000u);
  EXPECT_EQ(ParseByteSize("512M").value(), 512'000'000u);
  EXPECT_EQ(ParseByteSize("4KiB").value(), 4096u);
  EXPECT_EQ(ParseByteSize("1000").value(), 1000u);
  EXPECT_EQ(ParseByteSize("7B").value(), 7u);
}

TEST(ByteSizeTest, Refuses) {
  for (const char* text :
       {"", "GB", "80XB", "-80GB", "+80GB", "80GBs", "1e3GB", "nanGB", "inf", "0x10GB", "0", "0GB",
        "1.2.3GB", ".5GB", "5.GB", "80  GB", " 80GB", "9999999999TB", "80 "}) {
    const auto size = ParseByteSize(text);
    EXPECT_EQ(size.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_EQ(std::string(size.status().message()),
              "\"" + std::string(text) + "\" is not a size such as 80GB, 80GiB or 512MB");
  }
}

TEST(ByteSizeTest, Formats) {
  EXPECT_EQ(FormatByteSize(0), "0 B");
  EXPECT_EQ(FormatByteSize(999), "999 B");
  EXPECT_EQ(FormatByteSize(1000), "1.0 kB");
  EXPECT_EQ(FormatByteSize(79'840'000'000), "79.8 GB");
  EXPECT_EQ(FormatByteSize(999'960'000), "1.0 GB");
  EXPECT_EQ(FormatByteSize(1'500'000'000'000), "1.5 TB");
}

}  // namespace
}  // namespace essor::model
