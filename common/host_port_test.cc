#include "common/host_port.h"

#include "gtest/gtest.h"

namespace essor {
namespace {

TEST(ParseHostPortTest, TakesNamesAndBothKindsOfAddresses) {
  const struct {
    const char* text;
    const char* host;
    uint16_t port;
  } kCases[] = {{"127.0.0.1:0", "127.0.0.1", 0},
                {"localhost:65535", "localhost", 65535},
                {"[::1]:8000", "::1", 8000}};
  for (const auto& test : kCases) {
    const auto parsed = ParseHostPort(test.text);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(parsed->host, test.host);
    EXPECT_EQ(parsed->port, test.port);
  }
}

TEST(ParseHostPortTest, RefusesEverythingElseByName) {
  for (const char* text : {"", "nonsense", ":80", "host:", "host:65536", "host:-1", "host:1x"}) {
    const auto parsed = ParseHostPort(text);
    EXPECT_TRUE(absl::IsInvalidArgument(parsed.status())) << text;
    EXPECT_EQ(parsed.status().message(), "'" + std::string(text) + "' is not HOST:PORT");
  }
}

}  // namespace
}  // namespace essor
