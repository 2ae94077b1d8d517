// Byte-pair encoding against its definition, with random merges: cutting pieces at merge
// boundaries, merging by character and the cache must not change an id.
#include "model/tokenizer/bpe_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "model/tokenizer/ascii_runs.h"
#include "model/tokenizer/byte_level.h"
#include "model/tokenizer/utf8.h"

namespace essor::model {
namespace {

std::string ByteLevel(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) AppendUtf8(ByteLevelCharacter(static_cast<uint8_t>(c)), &text);
  return text;
}

// Characters that share lead and continuation bytes, so that merges meet in every way.
const std::vector<std::string> kCharacters = {"中", "丮", "串", "乭", "仭", "亮", "é",
                                              "ê",  "a",  "b",  " ",  "，", "𠀀", "𠀁"};

struct RandomModel {
  BpeDefinition definition;
  std::vector<std::pair<std::string, std::string>> merges;  // of bytes
};

// All bytes, and merges of tokens that follow each other in random text, in random order of rank
// when `shuffled`: then a token may be needed by a merge before the merge that makes it.
RandomModel MakeRandomModel(std::mt19937* rng, size_t num_merges, bool shuffled) {
  const auto pick = [rng](size_t count) {
    return std::uniform_int_distribution<size_t>(0, count - 1)(*rng);
  };
  std::vector<std::string> tokens;
  RandomModel model;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  while (model.merges.size() < num_merges) {
    std::string text;
    for (int i = 0; i < 4; ++i) text += kCharacters[pick(kCharacters.size())];
    // A random stretch of it, divided into two tokens that exist.
    const size_t begin = pick(text.size() - 1);
    const size_t size = 2 + pick(std::min<size_t>(text.size() - begin - 1, 8));
    const std::string joined = text.substr(begin, size);
    const size_t cut = 1 + pick(joined.size() - 1);
    const auto known = [&](const std::string& token) {
      return std::ranges::find(tokens, token) != tokens.end();
    };
    if (known(joined) || !known(joined.substr(0, cut)) || !known(joined.substr(cut))) continue;
    tokens.push_back(joined);
    model.merges.emplace_back(joined.substr(0, cut), joined.substr(cut));
  }
  if (shuffled) std::shuffle(model.merges.begin(), model.merges.end(), *rng);
  for (size_t i = 0; i < tokens.size(); ++i) {
    model.definition.vocab.emplace_back(ByteLevel(tokens[i]), static_cast<TokenId>(i));
  }
  for (const auto& [left, right] : model.merges) {
    model.definition.merges.emplace_back(ByteLevel(left), ByteLevel(right));
  }
  return model;
}

// The definition, literally.
std::vector<TokenId> MergeNaively(const RandomModel& model, std::string_view piece) {
  std::vector<std::string> tokens;
  for (const char c : piece) tokens.emplace_back(1, c);
  for (;;) {
    size_t best_rank = model.merges.size();
    size_t best = 0;
    for (size_t i = 0; i + 1 < tokens.size(); ++i) {
      const auto rank =
          static_cast<size_t>(std::ranges::find(model.merges, std::pair(tokens[i], tokens[i + 1])) -
                              model.merges.begin());
      if (rank < best_rank) {
        best_rank = rank;
        best = i;
      }
    }
    if (best_rank == model.merges.size()) break;
    tokens[best] += tokens[best + 1];
    tokens.erase(tokens.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
  std::vector<TokenId> ids;
  for (const std::string& token : tokens) {
    const std::string text = ByteLevel(token);
    const auto found = std::ranges::find_if(model.definition.vocab,
                                            [&](const auto& entry) { return entry.first == text; });
    ids.push_back(found->second);
  }
  return ids;
}

// Of pieces of random lengths, some of them beyond what the cache takes and what is merged by
// looking through all pairs.
void CompareOnRandomTexts(const RandomModel& model, std::mt19937* rng) {
  const auto bpe = BpeModel::Create(model.definition);
  ASSERT_TRUE(bpe.ok()) << bpe.status();
  BpeScratch scratch;
  for (int round = 0; round < 60; ++round) {
    std::string text;
    std::vector<Piece> pieces;
    std::vector<TokenId> expected;
    for (int i = 0; i < 5; ++i) {
      const auto begin = static_cast<uint32_t>(text.size());
      const size_t characters = 1 + (*rng)() % (i == 4 ? 40 : 7);
      for (size_t c = 0; c < characters; ++c) text += kCharacters[(*rng)() % kCharacters.size()];
      pieces.push_back({begin, static_cast<uint32_t>(text.size())});
      const std::vector<TokenId> ids = MergeNaively(model, pieces.back().In(text));
      expected.insert(expected.end(), ids.begin(), ids.end());
    }
    std::vector<TokenId> ids;
    (*bpe)->Encode(text, pieces, &scratch, &ids);
    ASSERT_EQ(ids, expected) << text;
  }
}

TEST(BpeModelTest, RandomMergesInTheOrderTheyWereMade) {
  std::mt19937 rng(7);
  for (int i = 0; i < 40; ++i) {
    SCOPED_TRACE(i);
    CompareOnRandomTexts(MakeRandomModel(&rng, 10 + i * 4, /*shuffled=*/false), &rng);
  }
}

TEST(BpeModelTest, RandomMergesInAnyOrder) {
  std::mt19937 rng(8);
  for (int i = 0; i < 40; ++i) {
    SCOPED_TRACE(i);
    CompareOnRandomTexts(MakeRandomModel(&rng, 10 + i * 4, /*shuffled=*/true), &rng);
  }
}

// A token that no merge gives is found where it is a whole piece, not where it is a part of one.
TEST(BpeModelTest, WordsThatOnlyWholePiecesAreStayOutOfTheCache) {
  BpeDefinition definition;
  definition.ignore_merges = true;
  for (int byte = 0; byte < 256; ++byte) {
    definition.vocab.emplace_back(ByteLevel(std::string(1, static_cast<char>(byte))), byte);
  }
  definition.vocab.emplace_back(ByteLevel("中"), 256);
  const auto bpe = BpeModel::Create(definition);
  ASSERT_TRUE(bpe.ok()) << bpe.status();
  const std::string text =
      "中"
      "中中"
      "中"
      " 中";
  const std::vector<Piece> pieces = {{0, 3}, {3, 9}, {9, 12}, {12, 16}};
  BpeScratch scratch;
  std::vector<TokenId> ids;
  (*bpe)->Encode(text, pieces, &scratch, &ids);
  const std::vector<TokenId> expected = {256,  0xe4, 0xb8, 0xad, 0xe4, 0xb8,
                                         0xad, 256,  0x20, 0xe4, 0xb8, 0xad};
  EXPECT_EQ(ids, expected);
}

template <typename Kind>
void CompareRuns(std::string_view text, bool (*is_kind)(char)) {
  for (size_t position = 0; position <= text.size(); ++position) {
    size_t expected = position;
    while (expected < text.size() && is_kind(text[expected])) ++expected;
    ASSERT_EQ(ascii::SkipRun<Kind>(text, position), expected) << text << " at " << position;
  }
}

TEST(AsciiRunsTest, EveryByteAtEveryPlace) {
  std::mt19937 rng(9);
  for (int round = 0; round < 2000; ++round) {
    std::string text(1 + rng() % 50, round % 2 == 0 ? 'q' : ' ');
    text[rng() % text.size()] = static_cast<char>(rng() % 256);
    text[rng() % text.size()] = static_cast<char>(rng() % 256);
    CompareRuns<ascii::Letters>(
        text, [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); });
    CompareRuns<ascii::LowerLetters>(text, [](char c) { return c >= 'a' && c <= 'z'; });
    CompareRuns<ascii::Blanks>(text, [](char c) { return c == ' '; });
    CompareRuns<ascii::All>(text, [](char c) { return static_cast<int8_t>(c) >= 0; });
  }
}

}  // namespace
}  // namespace essor::model
