// tokenizer.model files made by hand; tokenizer_golden_test.cc has trained ones.
#include "model/tokenizer/sentencepiece.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <string>
#include <vector>

#include "model/tokenizer/byte_fallback.h"
#include "model/tokenizer/protobuf_wire.h"

namespace essor::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string Varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes.push_back(static_cast<char>(value | 0x80));
  bytes.push_back(static_cast<char>(value));
  return bytes;
}

std::string NumberField(uint32_t number, uint64_t value) {
  return Varint(number << 3) + Varint(value);
}

std::string BytesField(uint32_t number, const std::string& bytes) {
  return Varint(number << 3 | 2) + Varint(bytes.size()) + bytes;
}

std::string FloatField(uint32_t number, float value) {
  std::string bytes = Varint(number << 3 | 5);
  for (int shift = 0; shift < 32; shift += 8) {
    bytes.push_back(static_cast<char>(std::bit_cast<uint32_t>(value) >> shift));
  }
  return bytes;
}

std::string Piece(const std::string& text, float score, uint64_t type = 1) {
  return BytesField(1, BytesField(1, text) + FloatField(2, score) + NumberField(3, type));
}

// model_type, and further fields of trainer_spec.
std::string Trainer(uint64_t model_type, const std::string& fields = "") {
  return BytesField(2, NumberField(3, model_type) + fields);
}

// Flags of normalizer_spec.
std::string NormalizerSpec(bool dummy, bool remove_extra) {
  return BytesField(3, NumberField(3, dummy) + NumberField(4, remove_extra));
}

constexpr uint64_t kUnigram = 1;
constexpr uint64_t kBpe = 2;

// 0 <unk>, 1 <s>, 2 </s>, 3 <ud>, then single characters and what they merge to.
std::string Pieces() {
  return Piece("<unk>", 0, 2) + Piece("<s>", 0, 3) + Piece("</s>", 0, 3) + Piece("<ud>", 0, 4) +
         Piece("\u2581", -5) + Piece("a", -5) + Piece("b", -5) + Piece("ab", -1) +
         Piece("\u2581ab", -2) + Piece("aba", -0.5f);
}

std::string AllBytes() {
  std::string pieces;
  for (int byte = 0; byte < 256; ++byte) {
    pieces += Piece(FallbackToken(static_cast<uint8_t>(byte)), 0, 6);
  }
  return pieces;
}

std::unique_ptr<Tokenizer> Make(const std::string& model, const TokenizerConfig& config = {}) {
  auto tokenizer = Tokenizer::FromSentencePiece(model, config);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

std::vector<TokenId> Ids(const Tokenizer& tokenizer, std::string_view text,
                         const EncodeOptions& options = {}) {
  const auto ids = tokenizer.Encode(text, options);
  EXPECT_TRUE(ids.ok()) << ids.status();
  return *ids;
}

TEST(SentencePieceTest, MergesByScoreAndPrependsABlank) {
  const auto tokenizer = Make(Pieces() + Trainer(kBpe) + NormalizerSpec(true, false));
  EXPECT_THAT(Ids(*tokenizer, "ab"), ElementsAre(8));
  // "aba" has the best score, though "ab" must come first to reach it.
  EXPECT_THAT(Ids(*tokenizer, "aba"), ElementsAre(4, 9));
  EXPECT_THAT(Ids(*tokenizer, "ab  ab"), ElementsAre(8, 4, 8));
  EXPECT_THAT(Ids(*tokenizer, "axyb"), ElementsAre(4, 5, 0, 6));  // unknown characters are one
  EXPECT_THAT(Ids(*tokenizer, ""), IsEmpty());
}

TEST(SentencePieceTest, RemovesExtraBlanks) {
  const auto tokenizer = Make(Pieces() + Trainer(kBpe) + NormalizerSpec(true, true));
  EXPECT_THAT(Ids(*tokenizer, "  ab   ab "), ElementsAre(8, 8));
  EXPECT_THAT(Ids(*tokenizer, "   "), IsEmpty());
}

TEST(SentencePieceTest, UserDefinedPiecesMatchEverywhereAndControlPiecesWhenAskedFor) {
  const std::string model = Pieces() + Trainer(kBpe) + NormalizerSpec(true, false);
  const auto tokenizer = Make(model);
  EXPECT_THAT(Ids(*tokenizer, "a<ud>b"), ElementsAre(4, 5, 3, 6));
  EXPECT_THAT(Ids(*tokenizer, "<s>ab", {.parse_special = true}), ElementsAre(1, 7));
  // As text nothing of it is known.
  EXPECT_THAT(Ids(*tokenizer, "<s>ab"), ElementsAre(4, 0, 7));
  TokenizerConfig legacy;
  legacy.legacy = true;
  EXPECT_THAT(Ids(*Make(model, legacy), "<s>ab", {.parse_special = true}), ElementsAre(1, 8));
  EXPECT_TRUE(tokenizer->IsSpecial(0));
  EXPECT_TRUE(tokenizer->IsSpecial(1));
  EXPECT_FALSE(tokenizer->IsSpecial(3));
}

TEST(SentencePieceTest, GuardedControlPiecesAreText) {
  for (const uint64_t type : {kBpe, kUnigram}) {
    const auto tokenizer = Make(Pieces() + Trainer(type) + NormalizerSpec(false, false));
    EXPECT_THAT(Ids(*tokenizer, "\uFDD0<s>a<s>", {.parse_special = true, .guarded = true}),
                ElementsAre(0, 5, 1));
  }
}

TEST(SentencePieceTest, UnknownCharactersFallBackToBytes) {
  for (const uint64_t type : {kBpe, kUnigram}) {
    const auto tokenizer = Make(Pieces() + AllBytes() + Trainer(type, NumberField(35, 1)) +
                                NormalizerSpec(false, false));
    constexpr TokenId kFirstByte = 10;
    EXPECT_THAT(Ids(*tokenizer, "a\u00e9b"),
                ElementsAre(5, kFirstByte + 0xc3, kFirstByte + 0xa9, 6));
    EXPECT_THAT(*tokenizer->Decode(Ids(*tokenizer, "a\u00e9b"), false), "a\u00e9b");
    EXPECT_TRUE(tokenizer->IsByteFallback(kFirstByte));
    EXPECT_FALSE(tokenizer->IsByteFallback(5));
    // The name of a byte in a text is text.
    EXPECT_EQ(Ids(*tokenizer, "<0x41>").size(), 6u);
  }
}

TEST(SentencePieceTest, DetokenizerHoldsBackRunsOfBytes) {
  const auto tokenizer =
      Make(Pieces() + AllBytes() + Trainer(kBpe, NumberField(35, 1)) + NormalizerSpec(true, false));
  constexpr TokenId kFirstByte = 10;
  IncrementalDetokenizer detokenizer(tokenizer.get());
  EXPECT_EQ(detokenizer.Push(8), "ab");  // without the blank that encoding put there
  EXPECT_EQ(detokenizer.Push(kFirstByte + 0xc3), "");
  EXPECT_EQ(detokenizer.Push(kFirstByte + 0xa9), "");
  EXPECT_EQ(detokenizer.Push(8), "\u00e9 ab");
  EXPECT_EQ(detokenizer.Push(kFirstByte + 'x'), "");
  EXPECT_EQ(detokenizer.Push(kFirstByte + 0xc3), "");
  EXPECT_EQ(detokenizer.Finish(), "\uFFFD\uFFFD");  // the run as a whole is not UTF-8
  EXPECT_EQ(detokenizer.Push(kFirstByte + ' '), "");
  EXPECT_EQ(detokenizer.Push(5), "a");  // a blank at the start, even as a byte
  EXPECT_EQ(detokenizer.Push(4), " ");
}

TEST(SentencePieceTest, UnigramTakesTheBestSum) {
  // ab + a (-6) beats a + b + a (-15); aba (-0.5) beats both.
  const auto tokenizer = Make(Pieces() + Trainer(kUnigram) + NormalizerSpec(false, false));
  EXPECT_THAT(Ids(*tokenizer, "aba"), ElementsAre(9));
  EXPECT_THAT(Ids(*tokenizer, "abab"), ElementsAre(7, 7));
  EXPECT_THAT(Ids(*tokenizer, "xyab"), ElementsAre(0, 7));
  EXPECT_THAT(Ids(*tokenizer, "a ab"), ElementsAre(5, 8));
}

TEST(SentencePieceTest, BosAndEosComeFromTheConfigOrTheFile) {
  const std::string model = Pieces() + Trainer(kBpe);
  EXPECT_THAT(Ids(*Make(model), "ab"), ElementsAre(8));
  TokenizerConfig config;
  config.tokenizer_class = "LlamaTokenizer";
  EXPECT_THAT(Ids(*Make(model, config), "ab"), ElementsAre(1, 8));
  config.add_bos_token = false;
  config.add_eos_token = true;
  EXPECT_THAT(Ids(*Make(model, config), "ab"), ElementsAre(8, 2));
  config.eos_token = "<ud>";
  EXPECT_THAT(Ids(*Make(model, config), "ab"), ElementsAre(8, 3));
  config.eos_token = "</none>";
  EXPECT_THAT(std::string(Tokenizer::FromSentencePiece(model, config).status().message()),
              HasSubstr("wants its eos_token added to every text, but \"</none>\" is no token"));
  config.eos_token = "";
  const std::string without_eos = Pieces() + Trainer(kBpe, NumberField(42, ~uint64_t{0}));
  EXPECT_FALSE(Tokenizer::FromSentencePiece(without_eos, config).ok());
}

TEST(SentencePieceTest, ConfiguredTokensOverrideAndAdd) {
  TokenizerConfig config;
  config.added_tokens = {{.content = "<ud>", .id = 3, .special = true},
                         {.content = "<new>", .id = 10, .special = false}};
  const auto tokenizer = Make(Pieces() + Trainer(kBpe) + NormalizerSpec(false, false), config);
  EXPECT_TRUE(tokenizer->IsSpecial(3));
  EXPECT_THAT(Ids(*tokenizer, "a<new>b"), ElementsAre(5, 10, 6));
  EXPECT_EQ(tokenizer->vocab_size(), 11u);
}

// A token begins where it stands, whatever is put before a text, and takes no blank.
TEST(SentencePieceTest, ConfiguredTokensMatchInTheTextAsItIs) {
  TokenizerConfig config;
  config.added_tokens = {{.content = "<new>", .id = 10, .special = false, .normalized = true}};
  const auto tokenizer = Make(Pieces() + Trainer(kBpe) + NormalizerSpec(true, false), config);
  const auto alone = Make(Pieces() + Trainer(kBpe) + NormalizerSpec(true, false));
  std::vector<TokenId> expected = Ids(*alone, "a");
  expected.push_back(10);
  const std::vector<TokenId> ids = Ids(*tokenizer, "a<new>b");
  ASSERT_GT(ids.size(), expected.size());
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), ids.begin()));
}

// Long runs have ways of their own through both models; they must give what shorter ones give,
// except where the short one ends.
TEST(SentencePieceTest, LongRunsBeginAsShortOnesDo) {
  const auto repeated = [](std::string_view unit, size_t count) {
    std::string text;
    for (size_t i = 0; i < count; ++i) text += unit;
    return text;
  };
  for (const uint64_t type : {kBpe, kUnigram}) {
    const auto tokenizer = Make(Pieces() + Trainer(type) + NormalizerSpec(false, false));
    for (const char* unit : {"a", "ab", "\u2581ab"}) {
      const std::vector<TokenId> some = Ids(*tokenizer, repeated(unit, 20));
      const std::vector<TokenId> many = Ids(*tokenizer, repeated(unit, 200'000));
      EXPECT_GE(many.size(), 5000 * some.size()) << unit;
      EXPECT_TRUE(std::equal(some.begin(), some.end() - 4, many.begin())) << unit;
    }
    EXPECT_EQ(Ids(*tokenizer, repeated("x", 400'000)), Ids(*tokenizer, "x"));  // unknown
  }
}

void ExpectRefused(const std::string& model, const std::string& message) {
  const absl::Status status = Tokenizer::FromSentencePiece(model, {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << message;
  EXPECT_THAT(std::string(status.message()), HasSubstr("tokenizer.model: " + message));
}

TEST(SentencePieceTest, NamesWhatIsWrong) {
  ExpectRefused("", "0 pieces");
  ExpectRefused("\x0a", "a number is cut off");
  ExpectRefused("\x0a\x05zz", "a field of 5 bytes where 2 are left");
  ExpectRefused("\x0b", "field 1 has wire type 3");
  ExpectRefused(std::string("\x00\x00", 2), "field number 0");
  ExpectRefused("\x08" + std::string(11, '\xff'), "a number of more than 64 bits");
  ExpectRefused(Pieces() + Trainer(3), "model_type 3 is not supported");
  ExpectRefused(Pieces() + BytesField(3, BytesField(2, "map")),
                "normalizer_spec.precompiled_charsmap is not supported");
  ExpectRefused(Pieces() + Trainer(kBpe, NumberField(24, 1)), "treat_whitespace_as_suffix");
  ExpectRefused(Pieces() + Piece("ab", 0), "piece 10: \"ab\" is given twice");
  ExpectRefused(Pieces() + Piece("\xff", 0), "piece 10: not UTF-8 text");
  ExpectRefused(Pieces() + Piece("", 0), "piece 10: no text");
  ExpectRefused(Pieces() + Piece(std::string(600, 'a'), 0),
                "piece 10: 600 bytes; the limit is 512");
  ExpectRefused(Pieces() + Piece("c", std::bit_cast<float>(0x7fc00000u)),
                "piece 10: the score is not a finite number");
  ExpectRefused(Pieces() + Piece("c", 0, 9), "piece 10: type 9 is not known");
  ExpectRefused(Pieces() + Piece("c", 0, 5) + Trainer(kBpe), "piece 10: unused pieces");
  ExpectRefused(Pieces() + Piece("c", 0, 2), "2 unknown pieces instead of one");
  ExpectRefused(Piece("c", 0), "0 unknown pieces instead of one");
  ExpectRefused(std::string(kSentencePieceBytesMax + 1, 'x'), "67108865 bytes; the limit is");
}

TEST(ProtobufReaderTest, ReadsEveryKindOfField) {
  const std::string message = NumberField(1, 300) + BytesField(2, "abc") + FloatField(3, 1.5f) +
                              "\x21" + std::string("\x01\0\0\0\0\0\0\x80", 8);
  ProtobufReader reader(message);
  EXPECT_EQ(reader.Next()->value, 300u);
  EXPECT_EQ(reader.Next()->bytes, "abc");
  EXPECT_EQ(reader.Next()->AsFloat(), 1.5f);
  const auto fixed = reader.Next();
  EXPECT_TRUE(fixed->Is(4, ProtobufField::Kind::kFixed64));
  EXPECT_EQ(fixed->value, 0x8000000000000001u);
  EXPECT_TRUE(reader.AtEnd());
}

}  // namespace
}  // namespace essor::model
