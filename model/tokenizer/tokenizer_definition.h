// What a tokenizer file says, independent of its format: the step between the readers
// (tokenizer_json, tokenizer_gguf, tokenizer_tiktoken, sentencepiece) and PipelineTokenizer.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "common/ids.h"
#include "model/tokenizer/tokenizer.h"

namespace essor::model {

// Far above every vocabulary in use (some 262 000); keeps a lying id from sizing a table.
inline constexpr uint64_t kTokenIdMax = (1u << 24) - 1;

struct BpeDefinition {
  // Whether token texts are in the byte-level alphabet (byte_level.h), or plain text.
  bool byte_level = true;
  // Token texts with their ids; each text once.
  std::vector<std::pair<std::string, TokenId>> vocab;
  // By rank, lowest (merged first) first.
  std::vector<std::pair<std::string, std::string>> merges;
  // Instead of `merges`, empty or [vocab.size()]: two tokens whose texts join to that of vocab[i]
  // merge with rank ranks[i]; kNoRank: never.
  std::vector<uint32_t> ranks;
  // Stands for symbols (bytes, or characters of plain text) that the vocabulary lacks; without it
  // they are dropped.
  std::optional<std::string> unk_token;
  bool fuse_unk = false;  // a run of such symbols becomes one unk_token
  // Of plain text: a character that the vocabulary lacks becomes its bytes' tokens "<0x00>" to
  // "<0xFF>", where the vocabulary has them all.
  bool byte_fallback = false;
  // A piece that is a token as a whole is that token, whatever the merges give.
  bool ignore_merges = false;

  static constexpr uint32_t kNoRank = UINT32_MAX;
};

// What a character that is no token costs, off the lowest score (kUnkPenalty of SentencePiece's
// unigram_model.cc; the tokenizers library has the same).
inline constexpr double kUnigramUnkPenalty = 10;

// Of a unigram model; its vocabulary, unk_token and byte_fallback are the BpeDefinition's.
struct UnigramDefinition {
  // [vocab.size()], logarithms of probabilities; minus infinity: never found in text.
  std::vector<double> scores;
  double unk_score = 0;  // of a character that no token is
};

// A token that is searched for in the text before anything else happens.
struct AddedToken {
  std::string content;
  TokenId id = 0;
  bool special = false;
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the white space to its left
  bool rstrip = false;
  bool normalized = false;  // searched for in the normalised text, in its normalised form
  bool verbatim = false;    // normalized: searched for as it stands
};

enum class UnicodeForm { kNfc, kNfd, kNfkc, kNfkd };
struct PrependStep {
  std::string text;
};
struct ReplaceStep {
  std::string pattern;
  bool is_regex = false;
  std::string content;
};
// SentencePiece's treatment of blanks (U+0020), in this order.
struct BlanksStep {
  bool remove_extra = false;   // those at both ends, and all but one of a run
  bool add_dummy = false;      // a blank before the text, unless nothing is left of it
  bool at_start_only = false;  // no such blank where the text follows an added token
  bool escape = true;          // blanks become U+2581
};
using NormalizerStep = std::variant<UnicodeForm, PrependStep, ReplaceStep, BlanksStep>;

enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };
struct SplitStep {
  std::string pattern;
  bool is_regex = false;
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;  // what the pattern does not match is the delimiter
};
struct DigitsStep {
  bool individual = false;
};
struct ByteLevelStep {
  bool add_prefix_space = false;
  bool use_regex = true;  // GPT-2's pattern
};
// Blanks become `replacement`, with one more before the text where there is none.
struct MetaspaceStep {
  enum class Prepend { kAlways, kFirst, kNever };  // kFirst: where no added token came before

  std::string replacement;
  Prepend prepend = Prepend::kAlways;
  bool split = true;  // before each replacement
};
using PreTokenizerStep = std::variant<SplitStep, DigitsStep, ByteLevelStep, MetaspaceStep>;

// How ids become text when the vocabulary is plain text.
struct DecoderDefinition {
  // In each token, in this order, every `first` becomes `second`.
  std::vector<std::pair<std::string, std::string>> replacements;
  bool byte_fallback = false;  // "<0x00>" to "<0xFF>" stand for bytes
  TextStart start = TextStart::kAsIs;
};

// Where long texts are cut (text_chunks.h).
struct ChunkLimits {
  size_t characters_max = 0;
  size_t run_max = 0;
};

struct TokenizerDefinition {
  BpeDefinition model;
  std::optional<UnigramDefinition> unigram;  // instead of BPE; needs model.unk_token
  std::optional<ChunkLimits> chunks;         // none: texts stay whole
  std::vector<AddedToken> added_tokens;
  std::vector<NormalizerStep> normalizers;
  // With model.byte_level the last one, and only it, is ByteLevel; otherwise none is.
  std::vector<PreTokenizerStep> pre_tokenizers;
  DecoderDefinition decoder;  // not for model.byte_level
  // What the post-processor puts around a text.
  std::vector<TokenId> prefix;
  std::vector<TokenId> suffix;
};

}  // namespace essor::model
