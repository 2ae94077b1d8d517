#include "worker/parallel/wire.h"

#include <cstring>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace essor::worker {
namespace {

using ::testing::HasSubstr;

std::string Text(const absl::Status& status) { return std::string(status.message()); }

// Golden bytes: the format must not change without a new version.
TEST(WireTest, HelloLooksAsDocumented) {
  const Hello hello{.epoch = 0x0102,
                    .group_key = 0x0304,
                    .from_rank = 5,
                    .to_rank = 6,
                    .max_payload_bytes = 7,
                    .target_key = 8};
  unsigned char bytes[kHelloBytes];
  std::memcpy(bytes, &hello, sizeof(bytes));
  EXPECT_EQ(std::memcmp(bytes, "ESSORDP1", 8), 0);
  EXPECT_EQ(bytes[8], kWireVersion);
  EXPECT_EQ(bytes[12], 0);
  EXPECT_EQ(bytes[16], 2);
  EXPECT_EQ(bytes[17], 1);
  EXPECT_EQ(bytes[24], 4);
  EXPECT_EQ(bytes[32], 5);
  EXPECT_EQ(bytes[36], 6);
  EXPECT_EQ(bytes[40], 7);
  EXPECT_EQ(bytes[48], 8);
  EXPECT_EQ(bytes[56], 0);
}

TEST(WireTest, RandomBytesAreNoHello) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 10000; ++i) {
    uint64_t words[kHelloBytes / 8];
    for (uint64_t& word : words) word = random();
    // Half of them start right.
    if (i % 2 == 0) words[0] = kHelloMagic;
    Hello hello;
    std::memcpy(&hello, words, sizeof(hello));
    EXPECT_EQ(CheckHello(hello).code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(WireTest, SaysWhatIsWrongWithAHello) {
  EXPECT_TRUE(CheckHello(Hello{}).ok());
  EXPECT_THAT(Text(CheckHello(Hello{.magic = 1})), HasSubstr("not an essor data plane"));
  EXPECT_THAT(Text(CheckHello(Hello{.version = 9})), HasSubstr("speaks version 9"));
  EXPECT_THAT(Text(CheckHello(Hello{.verdict = static_cast<Verdict>(9)})),
              HasSubstr("out of range"));
  EXPECT_THAT(Text(CheckHello(Hello{.zero = 1})), HasSubstr("out of range"));
}

TEST(WireTest, SaysHowFramesDiffer) {
  const FrameHeader expected{.operation = Operation::kAllReduce, .call = 4, .bytes = 16};
  EXPECT_TRUE(CheckFrame(expected, expected).ok());
  FrameHeader came = expected;
  came.bytes = 20;
  EXPECT_THAT(
      Text(CheckFrame(came, expected)),
      HasSubstr("sent operation 1, call 4, 20 bytes; expected operation 1, call 4, 16 bytes"));
  came = expected;
  came.magic = 0;
  EXPECT_THAT(Text(CheckFrame(came, expected)), HasSubstr("damaged frame"));
}

TEST(WireTest, KeysTellGroupsAndEndpointsApart) {
  EXPECT_EQ(GroupKey("tp", {0, 1}), GroupKey("tp", {0, 1}));
  EXPECT_NE(GroupKey("tp", {0, 1}), GroupKey("tp", {1, 0}));
  EXPECT_NE(GroupKey("tp", {0, 1}), GroupKey("pp", {0, 1}));
  EXPECT_NE(GroupKey("tp", {0}), GroupKey("tp", {0, 0}));
  const DataEndpoint endpoint{"host", "name", "1.2.3.4:5"};
  EXPECT_EQ(EndpointKey(endpoint), EndpointKey(endpoint));
  EXPECT_NE(EndpointKey(endpoint), EndpointKey({"hostn", "ame", "1.2.3.4:5"}));
}

}  // namespace
}  // namespace essor::worker
