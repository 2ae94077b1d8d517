// Byte-pair encoding of one piece of text: a piece becomes the tokens of its bytes (or, for
// plain-text vocabularies, of its characters), and the neighbouring pair of the lowest merge rank
// (leftmost among equals) is merged until no pair has a rank.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "common/ids.h"
#include "model/tokenizer/byte_fallback.h"
#include "model/tokenizer/merge_boundaries.h"
#include "model/tokenizer/merge_table.h"
#include "model/tokenizer/scanner.h"
#include "model/tokenizer/token_output.h"
#include "model/tokenizer/tokenizer_definition.h"
#include "model/tokenizer/word_key.h"
#include "model/tokenizer/word_table.h"

namespace essor::model {

// Working memory of encoding, and a cache of short pieces with their ids; both keep their size. The
// cache is one array that a piece's hash points into: nothing is locked, searched or moved, and the
// worst that one text can do to the next is to have taken all of its places, which costs that one
// at most a merge of 15 bytes for each of 65536 places (some ten milliseconds in all). 2 MiB.
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

  // Appends the ids of `pieces` of `text`, none of which is empty. O(n log n) in a piece's length.
  void Encode(std::string_view text, std::span<const Piece> pieces, BpeScratch* scratch,
              std::vector<TokenId>* ids) const;

  // Whether no token reaches over the place before a U+2581 that follows another character: texts
  // may be cut there without changing their ids.
  bool separates_words() const { return separates_words_; }

 private:
  BpeModel() = default;
  absl::Status AddMerges(const BpeDefinition& definition);
  void AddRanks(const BpeDefinition& definition);
  absl::Status AddSymbols(const BpeDefinition& definition);
  void AddWords(const BpeDefinition& definition);
  // For byte-level vocabularies that have a token for every byte; needs the merges.
  void AddBoundaries(const BpeDefinition& definition);

  // What bytes to be encoded are.
  enum class Range {
    kPiece,       // all that lies between two cuts of the pre-tokeniser
    kPart,        // a part of a piece, between merge boundaries
    kCharacters,  // the same, in which merges join whole characters only
  };
  static Range RangeOf(const MergeBoundaries::Part& part) {
    return part.joins_characters ? Range::kCharacters : Range::kPart;
  }
  // Pieces and parts of pieces whose keys are made ahead, so that the lines of the cache that they
  // point to are there when they are needed.
  struct Block {
    struct Item {
      std::string_view bytes;
      WordKey key;
      Range range = Range::kPiece;
    };
    std::array<Item, 16> items;
    size_t size = 0;
  };
  // The next ones of `pieces` of `text`, which are taken away; what is left of the last one, if it
  // is being cut, is `rest`.
  void FillBlock(std::string_view text, std::span<const Piece>* pieces, std::string_view* rest,
                 const BpeScratch& scratch, Block* block) const;
  void EncodeKeyed(std::string_view piece, const WordKey& key, Range range, const char* text_end,
                   BpeScratch* scratch, TokenOutput* output) const;
  // The same for one that is not in the cache.
  void EncodeUncached(std::string_view piece, const WordKey& key, Range range, const char* text_end,
                      BpeScratch* scratch, TokenOutput* output) const;
  void EncodeParts(std::string_view piece, const char* text_end, BpeScratch* scratch,
                   TokenOutput* output) const;

  void BytesToTokens(std::string_view piece, std::vector<TokenId>* tokens) const;
  void CharactersToTokens(std::string_view piece, std::vector<TokenId>* tokens) const;
  // Of byte-level vocabularies; false when a character is not one token.
  bool WholeCharactersToTokens(std::string_view piece, std::vector<TokenId>* tokens) const;
  // Returns the highest rank of its merges.
  uint32_t MergeShort(BpeScratch* scratch) const;
  void MergeLong(BpeScratch* scratch) const;
  // The ids of `piece`, in the scratch's `tokens`. `by_character`: see Range::kCharacters.
  void EncodeByMerging(std::string_view piece, bool by_character, BpeScratch* scratch) const;

  static constexpr TokenId kNoToken = UINT32_MAX;

  bool byte_level_ = true;
  bool separates_words_ = false;
  std::array<TokenId, 256> byte_tokens_;  // of byte-level vocabularies
  ByteTokens fallback_;                   // of plain text
  absl::flat_hash_map<char32_t, TokenId>
      character_tokens_;  // of byte-level: those of several bytes
  TokenId unk_ = kNoToken;
  bool fuse_unk_ = false;
  MergeTable merges_;
  bool ignore_merges_ = false;
  // Pieces that encode to one token, by their bytes: most of real text.
  std::optional<WordTable> words_;
  std::optional<MergeBoundaries> boundaries_;
};

}  // namespace essor::model
