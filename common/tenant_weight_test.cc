#include "common/tenant_weight.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace essor {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

TEST(ParseTenantWeightsTest, TakesNamesWithTheirWeights) {
  const auto weights = ParseTenantWeights({"blue=2", "a=b=0.5", "=1000", "slow=1e-3"});
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_THAT(*weights,
              ElementsAre(Pair("", 1000), Pair("a=b", 0.5), Pair("blue", 2), Pair("slow", 0.001)));
  EXPECT_TRUE(ParseTenantWeights({})->empty());
}

TEST(ParseTenantWeightsTest, RefusesEverythingElseByName) {
  const std::string weight = "is not NAME=WEIGHT with a weight from 0.001 to 1000";
  const std::string name = "does not begin with a tenant's name";
  const std::pair<std::string, std::string> kCases[] = {
      {"", weight},         {"blue", weight},     {"blue=", weight},
      {"blue=0", weight},   {"blue=-1", weight},  {"blue=1001", weight},
      {"blue=nan", weight}, {"blue=inf", weight}, {"blue=2x", weight},
      {"a b=2", name},      {"\xc3\xa9=2", name}, {std::string(129, 'n') + "=2", name}};
  for (const auto& [text, message] : kCases) {
    const absl::Status status = ParseTenantWeights({"fine=1", text}).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << text;
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("--tenant-weight: '" + text + "' " + message));
  }
  EXPECT_THAT(std::string(ParseTenantWeights({"a=1", "a=2"}).status().message()),
              HasSubstr("'a=2' weighs a tenant a second time"));
}

}  // namespace
}  // namespace essor
