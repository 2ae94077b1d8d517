// What a tokenizer file says, independent of its format: the step between the readers
// (tokenizer_json, tokenizer_gguf) and BpeTokenizer.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "common/ids.h"

namespace essor::model {

struct BpeDefinition {
  // Token texts in the byte-level alphabet (byte_level.h), with their ids; each text once.
  std::vector<std::pair<std::string, TokenId>> vocab;
  // By rank, lowest (merged first) first.
  std::vector<std::pair<std::string, std::string>> merges;
  // Stands for bytes the vocabulary lacks; without it they are dropped.
  std::optional<std::string> unk_token;
  bool fuse_unk = false;  // a run of such bytes becomes one unk_token
  // A piece that is a token as a whole is that token, whatever the merges give.
  bool ignore_merges = false;
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
using NormalizerStep = std::variant<UnicodeForm, PrependStep, ReplaceStep>;

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
using PreTokenizerStep = std::variant<SplitStep, DigitsStep, ByteLevelStep>;

struct TokenizerDefinition {
  BpeDefinition model;
  std::vector<AddedToken> added_tokens;
  std::vector<NormalizerStep> normalizers;
  std::vector<PreTokenizerStep> pre_tokenizers;  // the last one, and only it, is ByteLevel
  // What the post-processor puts around a text.
  std::vector<TokenId> prefix;
  std::vector<TokenId> suffix;
};

}  // namespace essor::model
