#include "client/cli/json_input.h"

#include "common/scratch_directory.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace essor::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string MessageOf(const absl::Status& status) { return std::string(status.message()); }

TEST(ParseTokenArraysTest, ReadsArraysOfIds) {
  const auto sequences = ParseTokenArrays("[[1, 4294967295], [], [0]]", "stdin");
  ASSERT_TRUE(sequences.ok()) << sequences.status();
  EXPECT_THAT(*sequences, ElementsAre(ElementsAre(1, 4294967295U), IsEmpty(), ElementsAre(0)));
}

TEST(ParseTokenArraysTest, NamesTheSourceAndTheIndex) {
  const struct {
    const char* json;
    const char* message;
  } kCases[] = {
      {"[[1], [2, -3]]", "ids.json: element 1, position 1 is not a token id"},
      {"[[1.5]]", "ids.json: element 0, position 0 is not a token id"},
      {"[[\"1\"]]", "ids.json: element 0, position 0 is not a token id"},
      {"[[4294967296]]", "ids.json: element 0, position 0 is not a token id"},
      {"[[null]]", "ids.json: element 0, position 0 is not a token id"},
      {"[1, 2]", "ids.json: element 0 is not an array of token ids"},
      {"{\"a\": 1}", "ids.json: not a JSON array"},
      {"[[1]", "ids.json: not JSON"},
      {"", "ids.json: not JSON"},
      {"[[1]] x", "ids.json: not JSON"},
  };
  for (const auto& test : kCases) {
    const auto result = ParseTokenArrays(test.json, "ids.json");
    EXPECT_TRUE(absl::IsInvalidArgument(result.status())) << test.json;
    EXPECT_THAT(MessageOf(result.status()), HasSubstr(test.message));
  }
}

TEST(ReadTokenFileTest, RefusesAMissingFileAndAnEmptySequence) {
  const ScratchDirectory scratch;
  EXPECT_TRUE(absl::IsNotFound(ReadTokenFile(scratch / "missing.json").status()));
  const auto result = ReadTokenFile(scratch.Write("ids.json", "[[1], []]"));
  EXPECT_TRUE(absl::IsInvalidArgument(result.status()));
  EXPECT_THAT(MessageOf(result.status()), HasSubstr("element 1 holds no token ids"));
}

TEST(ParseTextsTest, KeepsEveryCharacter) {
  const auto texts = ParseTexts(R"(["", "a\u0000b", "\ud83d\ude00\n"])", "stdin");
  ASSERT_TRUE(texts.ok()) << texts.status();
  EXPECT_THAT(*texts, ElementsAre("", std::string("a\0b", 3), "\xF0\x9F\x98\x80\n"));
  EXPECT_THAT(MessageOf(ParseTexts("[\"a\", 1]", "stdin").status()),
              HasSubstr("stdin: element 1 is not a string"));
}

}  // namespace
}  // namespace essor::cli
