#include "coordinator/core/placement.h"

#include <vector>

#include "gtest/gtest.h"

namespace essor::coordinator {
namespace {

TEST(PlacementTest, ChoosesTheGroupThatAnswersSoonest) {
  struct Case {
    const char* name;
    std::vector<GroupLoad> groups;
    std::optional<uint32_t> chosen;
  };
  const Case cases[] = {
      {"none has a slot", {{.has_slot = false}, {.has_slot = false}}, std::nullopt},
      {"equal: the first", {{.has_slot = true}, {.has_slot = true}}, 0},
      {"the only one with a slot", {{.has_slot = false}, {.has_slot = true, .num_running = 9}}, 1},
      {"fewer running", {{.has_slot = true, .num_running = 2}, {.has_slot = true}}, 1},
      {"less to prefill", {{.has_slot = true, .waiting_tokens = 9}, {.has_slot = true}}, 1},
      {"the prefix is worth more than a short queue",
       {{.has_slot = true}, {.has_slot = true, .num_running = 2, .cached_tokens = 64}},
       1},
      {"but not more than a long one",
       {{.has_slot = true}, {.has_slot = true, .num_running = 5, .cached_tokens = 64}},
       0},
  };
  for (const Case& one : cases) EXPECT_EQ(ChooseGroup(one.groups, 100), one.chosen) << one.name;
}

}  // namespace
}  // namespace essor::coordinator
