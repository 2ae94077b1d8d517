#include "coordinator/service/unread_buffer.h"

#include <string>

#include "gtest/gtest.h"

namespace essor::coordinator {
namespace {

// As many bytes as it says, and a header that merging saves.
struct Text {
  static constexpr size_t kHeaderBytes = 10;
  std::string text;
  size_t ByteSizeLong() const { return kHeaderBytes + text.size(); }
};

bool Append(Text* last, const Text& next) {
  last->text += next.text;
  return true;
}

bool KeepApart(Text*, const Text&) { return false; }

TEST(UnreadBufferTest, GivesMessagesInOrder) {
  UnreadBuffer<Text> buffer(100);
  EXPECT_FALSE(buffer.Next().has_value());
  for (const char* text : {"a", "b", "c"}) EXPECT_TRUE(buffer.Push({text}, KeepApart));
  EXPECT_EQ(buffer.Next()->text, "a");
  EXPECT_EQ(buffer.Next()->text, "b");
  EXPECT_EQ(buffer.Next()->text, "c");
  EXPECT_FALSE(buffer.Next().has_value());
}

TEST(UnreadBufferTest, MergesWhatWaitsButNotIntoWhatIsBeingSent) {
  UnreadBuffer<Text> buffer(100);
  EXPECT_TRUE(buffer.Push({"a"}, Append));
  EXPECT_EQ(buffer.Next()->text, "a");
  EXPECT_TRUE(buffer.Push({"b"}, Append));
  EXPECT_TRUE(buffer.Push({"c"}, Append));
  EXPECT_EQ(buffer.Next()->text, "bc");
  EXPECT_FALSE(buffer.Next().has_value());
}

TEST(UnreadBufferTest, RefusesWhatGoesBeyondTheLimit) {
  UnreadBuffer<Text> buffer(50);
  EXPECT_TRUE(buffer.Push({std::string(200, 'x')}, Append));  // alone it may be large
  EXPECT_FALSE(buffer.Push({"y"}, Append));
  EXPECT_EQ(buffer.Next()->text.size(), 200u);
  EXPECT_FALSE(buffer.Push({"y"}, Append));  // it is still being sent
  EXPECT_FALSE(buffer.Next().has_value());
  EXPECT_TRUE(buffer.Push({std::string(20, 'x')}, Append));
  EXPECT_TRUE(buffer.Push({std::string(10, 'y')}, Append));
  EXPECT_FALSE(buffer.Push({"z"}, Append));
  EXPECT_EQ(buffer.Next()->text, std::string(20, 'x') + std::string(10, 'y'));
}

// A client that always has a little unread, and reads on, is never taken for one that does not
// read.
TEST(UnreadBufferTest, CountsNothingTwiceHoweverLongItGoesOn) {
  UnreadBuffer<Text> buffer(100);
  ASSERT_TRUE(buffer.Push({"a"}, Append));
  ASSERT_TRUE(buffer.Next().has_value());
  for (int i = 0; i < 1000; ++i) {
    ASSERT_TRUE(buffer.Push({"b"}, Append)) << i;
    ASSERT_TRUE(buffer.Push({"c"}, Append)) << i;
    ASSERT_EQ(buffer.Next()->text, "bc");
  }
}

TEST(UnreadBufferTest, MergesNoMessageTooLargeForAClient) {
  UnreadBuffer<Text> buffer(4 * kMaxMergedBytes);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(buffer.Push({std::string(kMaxMergedBytes / 2, 'x')}, Append));
  }
  for (int i = 0; i < 3; ++i) EXPECT_EQ(buffer.Next()->text.size(), kMaxMergedBytes / 2);
  EXPECT_FALSE(buffer.Next().has_value());
}

TEST(UnreadBufferTest, ClearedItTakesNewMessagesAgain) {
  UnreadBuffer<Text> buffer(50);
  ASSERT_TRUE(buffer.Push({"a"}, KeepApart));
  ASSERT_TRUE(buffer.Next().has_value());
  ASSERT_TRUE(buffer.Push({std::string(25, 'b')}, KeepApart));
  ASSERT_FALSE(buffer.Push({"c"}, KeepApart));
  buffer.Clear();
  EXPECT_TRUE(buffer.Push({"c"}, KeepApart));
  EXPECT_EQ(buffer.Next()->text, "c");
}

}  // namespace
}  // namespace essor::coordinator
