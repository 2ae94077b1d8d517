#include "worker/parallel/ordered_sum.h"

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "worker/parallel/group_member.h"

namespace essor::worker {
namespace {

// Bit for bit: the order of additions is the contract, so there is no tolerance.
TEST(OrderedSumTest, AddsInTheOrderOfTheSourcesInPlaceOrNot) {
  std::mt19937 random(3);
  std::uniform_real_distribution<float> uniform(-1, 1);
  for (const size_t count : {0, 1, 7, 1023, 1024, 1025, 5000}) {
    for (const size_t num_sources : {1, 2, 3, 8}) {
      std::vector<std::vector<float>> values(num_sources, std::vector<float>(count));
      std::vector<const float*> sources;
      for (std::vector<float>& source : values) {
        for (float& value : source) {
          value = std::ldexp(uniform(random), static_cast<int>(random() % 30));
        }
        sources.push_back(source.data());
      }
      std::vector<float> expected(count);
      for (size_t i = 0; i < count; ++i) {
        expected[i] = values[0][i];
        for (size_t source = 1; source < num_sources; ++source) expected[i] += values[source][i];
      }
      std::vector<float> apart(count);
      SumInOrder(sources, count, apart.data());
      EXPECT_EQ(apart, expected);
      std::vector<float>& in_place = values[num_sources / 2];
      SumInOrder(sources, count, in_place.data());
      EXPECT_EQ(in_place, expected);
    }
  }
}

TEST(RangeOfTest, RangesCoverEverythingOnce) {
  for (const size_t total : {0, 1, 5, 7, 8, 1000003}) {
    for (const uint32_t members : {1u, 2u, 3u, 8u}) {
      size_t next = 0;
      for (uint32_t member = 0; member < members; ++member) {
        const FloatRange range = RangeOf(total, member, members);
        EXPECT_EQ(range.begin, next);
        EXPECT_LE(range.count, total / members + 1);
        next += range.count;
      }
      EXPECT_EQ(next, total);
    }
  }
}

}  // namespace
}  // namespace essor::worker
