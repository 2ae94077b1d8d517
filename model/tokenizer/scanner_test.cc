// The hand-written scanners against the regular expressions they replace, on random text that mixes
// all kinds of characters.
#include "model/tokenizer/scanner.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <random>
#include <string>
#include <vector>

#include "model/tokenizer/regex.h"
#include "model/tokenizer/utf8.h"

namespace essor::model {
namespace {

std::vector<Piece> Scan(ScannerKind kind, std::string_view text) {
  std::vector<Piece> pieces;
  std::array<Piece, 7> batch;  // small, so that batches end everywhere
  size_t position = 0;
  while (const size_t count = GetScanner(kind)->Scan(text, position, batch)) {
    pieces.insert(pieces.end(), batch.begin(), batch.begin() + count);
    position = batch[count - 1].end;
  }
  return pieces;
}

// Splits each of `pieces` at the matches of `pattern`.
std::vector<Piece> SplitIsolated(std::string_view text, const std::vector<Piece>& pieces,
                                 std::string_view pattern) {
  const auto regex = *Regex::Compile(pattern);
  Regex::Matcher matcher(*regex);
  std::vector<Piece> result;
  for (const Piece& piece : pieces) {
    std::vector<Piece> matches;
    EXPECT_TRUE(matcher.FindAll(piece.In(text), &matches).ok());
    uint32_t end = piece.begin;
    for (const Piece& match : matches) {
      if (piece.begin + match.begin != end) result.push_back({end, piece.begin + match.begin});
      result.push_back({piece.begin + match.begin, piece.begin + match.end});
      end = piece.begin + match.end;
    }
    if (end != piece.end) result.push_back({end, piece.end});
  }
  return result;
}

// kKimi's pattern without class intersections, which PCRE2 does not have.
std::string KimiPatternOfPcre2() {
  std::string pattern(ScannerPattern(ScannerKind::kKimi));
  for (const char* letters : {"\\p{Lu}\\p{Lt}", "\\p{Ll}"}) {
    const std::string set = std::string("[") + letters + "\\p{Lm}\\p{Lo}\\p{M}";
    const std::string old_set = set + "&&[^\\p{Han}]]";
    for (size_t at = pattern.find(old_set); at != std::string::npos; at = pattern.find(old_set)) {
      pattern.replace(at, old_set.size(), "(?:(?!\\p{Han})" + set + "])");
    }
  }
  return pattern;
}

std::vector<Piece> Oracle(ScannerKind kind, std::string_view text) {
  std::vector<Piece> pieces = {{0, static_cast<uint32_t>(text.size())}};
  if (text.empty()) return {};
  if (kind == ScannerKind::kSmolLm) pieces = SplitIsolated(text, pieces, "\\p{N}");
  if (kind == ScannerKind::kDeepSeekV3) {
    pieces = SplitIsolated(text, pieces, kDeepSeekDigits);
    pieces = SplitIsolated(text, pieces, kDeepSeekCjk);
  }
  if (kind == ScannerKind::kKimi) return SplitIsolated(text, pieces, KimiPatternOfPcre2());
  return SplitIsolated(text, pieces, ScannerPattern(kind));
}

std::string RandomText(std::mt19937& random) {
  static const std::array<std::u32string, 14> kPools = {
      U"abcxyz",
      U"ABCXYZ\u01c5",
      U" ",
      U" \t\n\r\v\u00a0\u3000\u2028\u0085",
      U"\n\r",
      U"0123456789\u0663\u2167\u00bd",
      U".,;:!?'\"-_/\\()[]{}<>@#$%^&*+=|~`\u20ac\u2122\u00a9\u2192",
      U"\u00e9\u00df\u017f\u212a\u02b0\u00aa",
      U"\u4e2d\u6587\u9fa5\u9fa6\u3007\u3001\u3005\u2e80\U00020000",
      U"\u3072\u30ab\u30fc\u309b\u30fb\u3099\u3040",
      U"\ud55c\u0939\u093f\u05e9",
      U"\u0301\u0302\u0345\u20dd",
      U"\u200d\u200b\ufeff\u0001\u007f\U0001f600\ue000",
      U"'sStTmMdDrReElLvV",
  };
  std::string text;
  const int runs = static_cast<int>(random() % 24);
  for (int i = 0; i < runs; ++i) {
    const std::u32string& pool = kPools[random() % kPools.size()];
    const int count = 1 + static_cast<int>(random() % 4);
    for (int k = 0; k < count; ++k) AppendUtf8(pool[random() % pool.size()], &text);
  }
  return text;
}

class ScannerTest : public testing::TestWithParam<ScannerKind> {};

TEST_P(ScannerTest, CutsWhereTheRegularExpressionCuts) {
  std::mt19937 random(20261123);
  for (int i = 0; i < 4000; ++i) {
    const std::string text = RandomText(random);
    ASSERT_EQ(Scan(GetParam(), text), Oracle(GetParam(), text)) << "text " << i << ": " << text;
  }
}

TEST_P(ScannerTest, CoversLongRunsInLinearTime) {
  for (const std::string& unit :
       {std::string(" "), std::string("\n"), std::string("a"), std::string("'"),
        std::string("\xcc\x81"), std::string(" \n"), std::string("\xe2\x80\x8d"),
        std::string("\xca\xb0"
                    "A")}) {
    std::string text;
    while (text.size() < 300'000) text += unit;
    const std::vector<Piece> pieces = Scan(GetParam(), text);
    ASSERT_FALSE(pieces.empty());
    EXPECT_EQ(pieces.front().begin, 0u);
    EXPECT_EQ(pieces.back().end, text.size());
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, ScannerTest,
                         testing::Values(ScannerKind::kGpt2, ScannerKind::kSmolLm,
                                         ScannerKind::kQwen2, ScannerKind::kQwen35,
                                         ScannerKind::kLlama3, ScannerKind::kDeepSeekV3,
                                         ScannerKind::kO200k, ScannerKind::kKimi));

TEST(RegexTest, WritesAroundDifferencesOfPcre2) {
  const auto matches = [](std::string_view pattern, std::string_view text) {
    std::vector<Piece> result;
    const auto regex = *Regex::Compile(pattern);
    EXPECT_TRUE(Regex::Matcher(*regex).FindAll(text, &result).ok());
    return result.size();
  };
  EXPECT_EQ(matches("\\p{Han}", "中、《"), 1u);   // script, not script extensions
  EXPECT_EQ(matches("\\s", "\xe1\xa0\x8e"), 0u);  // U+180E is no white space
  EXPECT_EQ(matches("[\\s]", "\xc2\x85\xe3\x80\x80"), 2u);
  EXPECT_EQ(matches("^a", "a\na"), 2u);
  EXPECT_EQ(matches("[]a]+", "a]"), 1u);
}

TEST(RegexTest, ReportsRunawayBacktrackingAsAnError) {
  const auto regex = *Regex::Compile("(a+)+$");
  std::vector<Piece> result;
  const absl::Status status = Regex::Matcher(*regex).FindAll(std::string(60, 'a') + "b", &result);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(std::string(status.message()).find("PCRE2 error"), std::string::npos);
}

}  // namespace
}  // namespace essor::model
