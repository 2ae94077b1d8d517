// A tokenizer as a pipeline: added tokens, normaliser, pre-tokeniser, BPE or unigram model,
// post-processor.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "model/tokenizer/added_tokens.h"
#include "model/tokenizer/bpe_model.h"
#include "model/tokenizer/normalizer.h"
#include "model/tokenizer/pre_tokenizer.h"
#include "model/tokenizer/tokenizer.h"
#include "model/tokenizer/tokenizer_definition.h"
#include "model/tokenizer/unigram_model.h"

namespace essor::model {

class PipelineTokenizer final : public Tokenizer {
 public:
  // The longest text, raw or normalised, that Encode() takes.
  static constexpr size_t kTextBytesMax = size_t{256} << 20;

  // InvalidArgument for a definition that contradicts itself.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(TokenizerDefinition definition);

  absl::StatusOr<std::vector<TokenId>> Encode(std::string_view text,
                                              const EncodeOptions& options) const override;
  std::string_view TokenBytes(TokenId id) const override;
  bool IsSpecial(TokenId id) const override;
  bool IsByteFallback(TokenId id) const override;
  TextStart text_start() const override { return text_start_; }
  uint32_t vocab_size() const override { return static_cast<uint32_t>(tokens_.size()); }
  const std::vector<TokenId>& special_tokens() const override { return special_tokens_; }
  absl::StatusOr<TokenId> IdOf(std::string_view token) const override;

 private:
  struct Token {
    uint32_t offset = 0;  // of its bytes in bytes_
    uint32_t size = 0;
    bool special = false;
    bool byte_fallback = false;
  };
  // What one Encode() call works with; kept for the next one, since it holds the piece cache.
  struct Scratch {
    BpeScratch bpe;
    PreTokenized pre_tokenized;
    std::vector<Piece> words;
    std::string normalized;
    std::vector<AddedTokenMatcher::Segment> raw_segments;
    std::vector<AddedTokenMatcher::Segment> normalized_segments;
  };
  // Decoders may lengthen tokens: each of them, and all together, may come to this much.
  static constexpr size_t kTokenBytesMax = size_t{64} << 10;
  static constexpr size_t kVocabularyBytesMax = size_t{512} << 20;
  // Concurrent calls beyond this many make their own.
  static constexpr size_t kScratchesKept = 8;

  PipelineTokenizer() = default;
  absl::Status BuildVocabulary(const TokenizerDefinition& definition);
  absl::Status BuildMatchers(const std::vector<AddedToken>& tokens);
  void SetToken(TokenId id, std::string_view bytes, bool special);
  // What a token of plain text decodes to.
  absl::Status SetPlainToken(const DecoderDefinition& decoder, TokenId id, std::string text,
                             bool special);

  // All chunks of `text`. `guards`: see AddedTokenMatcher.
  absl::Status EncodeChunks(std::string_view text, bool parse_special,
                            std::span<const uint32_t> guards, Scratch* scratch,
                            std::vector<TokenId>* ids) const;
  absl::Status EncodeSegments(std::string_view text, bool parse_special,
                              std::span<const uint32_t> guards, Scratch* scratch,
                              std::vector<TokenId>* ids) const;
  // `at_start`: no added token came before `text`.
  absl::Status EncodeText(std::string_view text, bool at_start, Scratch* scratch,
                          std::vector<TokenId>* ids) const;
  // Those in scratch->pre_tokenized.
  absl::Status EncodePieces(Scratch* scratch, std::vector<TokenId>* ids) const;
  // Cuts `piece` before each U+2581 that follows another character.
  static void SplitWords(std::string_view text, const Piece& piece, std::vector<Piece>* words);
  std::unique_ptr<Scratch> TakeScratch() const;
  void ReturnScratch(std::unique_ptr<Scratch> scratch) const;

  std::unique_ptr<BpeModel> model_;  // or:
  std::unique_ptr<UnigramModel> unigram_;
  std::unique_ptr<Normalizer> normalizer_;
  std::unique_ptr<PreTokenizer> pre_tokenizer_;
  std::unique_ptr<AddedTokenMatcher> raw_matcher_;
  std::unique_ptr<AddedTokenMatcher> normalized_matcher_;
  std::optional<ChunkLimits> chunks_;
  std::vector<TokenId> prefix_;
  std::vector<TokenId> suffix_;

  std::vector<Token> tokens_;  // [vocab_size]
  std::string bytes_;
  std::vector<TokenId> special_tokens_;
  TextStart text_start_ = TextStart::kAsIs;
  absl::flat_hash_map<std::string, TokenId> ids_;

  mutable absl::Mutex scratches_mutex_;
  mutable std::vector<std::unique_ptr<Scratch>> scratches_ ABSL_GUARDED_BY(scratches_mutex_);
};

}  // namespace essor::model
