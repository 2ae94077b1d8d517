#include "client/cli/json_output.h"

#include <limits>

#include "gtest/gtest.h"

namespace essor::cli {
namespace {

TEST(JsonOutputTest, WritesFloatsThatReadBackEqual) {
  const float values[] = {-0.1F, 1e-30F, -104.25F, 16777216.0F};
  JsonOutput json;
  json.Value(std::span<const float>(values));
  EXPECT_EQ(json.text(), "[-0.1,1e-30,-104.25,16777216]");
}

TEST(JsonOutputTest, WritesNullForWhatJsonCannotSay) {
  JsonOutput json;
  json.StartArray();
  json.Value(std::numeric_limits<float>::quiet_NaN());
  json.Value(-std::numeric_limits<double>::infinity());
  json.EndArray();
  EXPECT_EQ(json.text(), "[null,null]");
}

TEST(JsonOutputTest, EscapesText) {
  JsonOutput json;
  json.StartObject();
  json.Field("text", std::string_view("a\"\n\x01\xC3\xA9"));
  json.EndObject();
  EXPECT_EQ(json.text(), "{\"text\":\"a\\\"\\n\\u0001\xC3\xA9\"}");
}

}  // namespace
}  // namespace essor::cli
