// Byte-pair encoding of one piece of text: a piece becomes the tokens of its bytes (or, for
// plain-text vocabularies, of its characters), and the neighbouring pair of the lowest merge rank
// (leftmost among equals) is merged until no pair has a rank.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "common/ids.h"
#include "model/tokenizer/byte_fallback.h"
#include "model/tokenizer/tokenizer_definition.h"

namespace essor::model {

// A piece as a fixed-size key: its bytes when there are at most 15 (the last byte holds the
// length), otherwise two hashes and an owner who compares the bytes.
struct WordKey {
  static constexpr size_t kInlineBytes = 15;

  uint64_t low = 0;
  uint64_t high = 0;

  // `text_end` is the end of the text that `word` lies in: up to there it is safe to read.
  static WordKey Of(std::string_view word, const char* text_end);
  bool is_inline() const { return (high >> 56) <= kInlineBytes; }
  uint64_t Hash() const;
  bool operator==(const WordKey&) const = default;
};

// Working memory of encoding, and a cache of pieces that needed merging; both keep their size.
// Thread-compatible; belongs to one BpeModel.
class BpeScratch {
 public:
  BpeScratch();
  ~BpeScratch();

  // Gives back buffers of more than `bytes`; the cache stays.
  void Shrink(size_t bytes);

 private:
  friend class BpeModel;
  struct Buffers;
  std::unique_ptr<Buffers> buffers_;
};

// Immutable; thread-safe.
class BpeModel {
 public:
  // InvalidArgument naming the merge or token for anything inconsistent.
  static absl::StatusOr<std::unique_ptr<BpeModel>> Create(const BpeDefinition& definition);
  ~BpeModel();

  // Appends the ids of `piece`, which is not empty and lies in a text that ends at `text_end`.
  // O(n log n) in the piece's length.
  void Encode(std::string_view piece, const char* text_end, BpeScratch* scratch,
              std::vector<TokenId>* ids) const;

  // Whether no token reaches over the place before a U+2581 that follows another character: texts
  // may be cut there without changing their ids.
  bool separates_words() const { return separates_words_; }

 private:
  struct Merge {
    uint32_t rank = UINT32_MAX;  // UINT32_MAX: the pair does not merge
    TokenId result = 0;
  };
  struct MergeSlot {
    uint64_t pair = UINT64_MAX;
    Merge merge;
  };
  struct WordSlot {
    WordKey key;
    TokenId id = UINT32_MAX;  // UINT32_MAX: free
    uint32_t offset = 0;      // of the bytes in words_, for keys that are hashes
    uint32_t size = 0;
  };

  BpeModel() = default;
  absl::Status AddMerges(const BpeDefinition& definition);
  void AddRanks(const BpeDefinition& definition);
  absl::Status AddSymbols(const BpeDefinition& definition);
  void AddWords(const BpeDefinition& definition);
  void InsertMerge(TokenId left, TokenId right, const Merge& merge);
  void InsertWord(std::string_view word, TokenId id);
  Merge FindMerge(TokenId left, TokenId right) const;
  const WordSlot* FindWord(std::string_view word, const WordKey& key) const;

  void BytesToTokens(std::string_view piece, std::vector<TokenId>* tokens) const;
  void CharactersToTokens(std::string_view piece, std::vector<TokenId>* tokens) const;
  void MergeShort(BpeScratch* scratch) const;
  void MergeLong(BpeScratch* scratch) const;
  // The ids of `piece`, in the scratch's `tokens`.
  void EncodeByMerging(std::string_view piece, BpeScratch* scratch) const;

  static constexpr TokenId kNoToken = UINT32_MAX;

  bool byte_level_ = true;
  bool separates_words_ = false;
  std::array<TokenId, 256> byte_tokens_;                     // of byte-level vocabularies
  ByteTokens fallback_;                                      // of plain text
  absl::flat_hash_map<char32_t, TokenId> character_tokens_;  // of plain text
  TokenId unk_ = kNoToken;
  bool fuse_unk_ = false;
  std::vector<MergeSlot> merges_;  // open addressing, a power of two
  // Pieces that encode to one token, by their bytes: most of real text.
  std::vector<WordSlot> word_slots_;
  std::string words_;
};

}  // namespace essor::model
