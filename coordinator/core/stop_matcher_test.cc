#include "coordinator/core/stop_matcher.h"

#include <random>

#include "gtest/gtest.h"

namespace essor::coordinator {
namespace {

TEST(StopMatcherTest, WithoutStopsTextPassesAtOnce) {
  StopMatcher matcher({});
  EXPECT_EQ(matcher.Push("abc"), "abc");
  EXPECT_EQ(matcher.Finish(), "");
}

TEST(StopMatcherTest, HoldsBackWhatMayBeginAStop) {
  StopMatcher matcher({"STOP"});
  EXPECT_EQ(matcher.Push("say ST"), "say ");
  EXPECT_EQ(matcher.Push("A"), "STA");
  EXPECT_EQ(matcher.Push(" S"), " ");
  EXPECT_EQ(matcher.Push("TOP and more"), "");
  EXPECT_TRUE(matcher.matched());
  EXPECT_EQ(matcher.Push("never"), "");
  EXPECT_EQ(matcher.Finish(), "");
}

TEST(StopMatcherTest, ReleasesHeldTextAtTheEnd) {
  StopMatcher matcher({"STOP"});
  EXPECT_EQ(matcher.Push("ST"), "");
  EXPECT_EQ(matcher.Finish(), "ST");
  EXPECT_FALSE(matcher.matched());
}

TEST(StopMatcherTest, SelfOverlappingStopIsFound) {
  StopMatcher matcher({"aab"});
  EXPECT_EQ(matcher.Push("aaa"), "a");
  EXPECT_EQ(matcher.Push("b"), "");
  EXPECT_TRUE(matcher.matched());
}

TEST(StopMatcherTest, TheStopThatEndsFirstWinsAndTheLongestOfThose) {
  StopMatcher first({"abcd", "bc"});
  EXPECT_EQ(first.Push("xabcd"), "xa");
  StopMatcher longest({"c", "abc"});
  EXPECT_EQ(longest.Push("xabc"), "x");
}

// The reference: scan the whole text for the first position at which any stop ends.
std::pair<std::string, bool> Expected(const std::string& text,
                                      const std::vector<std::string>& stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (stop.size() <= end && text.compare(end - stop.size(), stop.size(), stop) == 0) {
        longest = std::max(longest, stop.size());
      }
    }
    if (longest > 0) return {text.substr(0, end - longest), true};
  }
  return {text, false};
}

// However the text is cut, the output equals the reference and no released text is taken back.
TEST(StopMatcherTest, AgreesWithAPlainScanForAnyCutting) {
  std::mt19937 random(7);
  for (int round = 0; round < 5000; ++round) {
    const auto letters = [&](size_t max_length, size_t min_length) {
      std::string text(min_length + random() % (max_length - min_length + 1), 'a');
      for (char& letter : text) letter = static_cast<char>('a' + random() % 2);
      return text;
    };
    const std::string text = letters(24, 0);
    std::vector<std::string> stops;
    for (size_t i = random() % 4; i > 0; --i) stops.push_back(letters(6, 1));
    StopMatcher matcher(stops);
    std::string output;
    for (size_t position = 0; position < text.size();) {
      const size_t length = 1 + random() % 5;
      output += matcher.Push(std::string_view(text).substr(position, length));
      position += length;
    }
    output += matcher.Finish();
    const auto [expected, matched] = Expected(text, stops);
    ASSERT_EQ(output, expected) << "round " << round << " text " << text;
    ASSERT_EQ(matcher.matched(), matched) << "round " << round << " text " << text;
  }
}

}  // namespace
}  // namespace essor::coordinator
