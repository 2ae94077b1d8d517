#include "model/tokenizer/word_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace essor::model {
namespace {

constexpr size_t kWords = 200'000;
constexpr size_t kSlots = size_t{1} << 19;  // of a table for them

std::string BytesOf(uint64_t word) {
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &word, 8);
  return bytes;
}

WordKey KeyOf(const std::string& word) { return WordKey::Of(word, word.data() + word.size()); }

// The most slots that one of `words` looks at when they are put into a table, `limit` at most.
size_t LongestProbe(const std::vector<std::string>& words, size_t limit) {
  std::vector<bool> is_taken(kSlots);
  size_t longest = 0;
  for (const std::string& word : words) {
    size_t slot = KeyOf(word).Hash() & (kSlots - 1);
    size_t probes = 1;
    for (; is_taken[slot] && probes < limit; ++probes) slot = (slot + 1) & (kSlots - 1);
    is_taken[slot] = true;
    longest = std::max(longest, probes);
  }
  return longest;
}

// Words of 9 to 15 bytes that begin alike, of more than 15 that end alike, and ordinary ones.
TEST(WordTableTest, NoVocabularyMakesLongProbes) {
  constexpr size_t kProbesMax = 400;  // some 40 are usual at this load
  const uint64_t beginnings[] = {0x9e3779b97f4a7c15, 0xbb67ae8584caa73b, 0, ~uint64_t{0}};
  for (const uint64_t beginning : beginnings) {
    std::vector<std::string> same_beginning;
    std::vector<std::string> same_end;
    for (size_t i = 0; i < kWords; ++i) {
      same_beginning.push_back(BytesOf(beginning) + absl::StrCat(i));
      same_end.push_back(BytesOf(i) + BytesOf(beginning) + "abcdefgh");
    }
    EXPECT_LT(LongestProbe(same_beginning, kProbesMax), kProbesMax) << beginning;
    EXPECT_LT(LongestProbe(same_end, kProbesMax), kProbesMax) << beginning;
  }
  std::vector<std::string> ordinary;
  for (size_t i = 0; i < kWords; ++i) ordinary.push_back(absl::StrCat("word", i));
  EXPECT_LT(LongestProbe(ordinary, kProbesMax), kProbesMax);
}

TEST(WordTableTest, FindsWhatWasInserted) {
  WordTable table(kWords);
  const auto word_of = [](size_t i) { return BytesOf(0x9e3779b97f4a7c15) + absl::StrCat(i); };
  for (size_t i = 0; i < kWords; ++i) table.Insert(word_of(i), static_cast<TokenId>(i), false);
  for (size_t i = 0; i < kWords; ++i) {
    const std::string word = word_of(i);
    const WordTable::Word* found = table.Find(word, KeyOf(word));
    ASSERT_NE(found, nullptr) << i;
    EXPECT_EQ(found->id, i);
  }
  const std::string absent = word_of(kWords);
  EXPECT_EQ(table.Find(absent, KeyOf(absent)), nullptr);
}

}  // namespace
}  // namespace essor::model
