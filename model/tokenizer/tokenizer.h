// Text to token ids and back. Needs only tokenizer files, no model.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/ids.h"
#include "model/checkpoint/gguf.h"

namespace essor::model {

struct EncodeOptions {
  // Run the tokenizer file's post-processor (BOS and the like).
  bool add_special = true;
  // Recognise special tokens written out in the text. False for text that comes from a user: there
  // "<|im_end|>" is eight characters of text. Added tokens that are not special always match.
  bool parse_special = false;
  // The text carries guards (model/tokenizer/guards.h): they are dropped, and no special token is
  // recognised where one of them stands.
  bool guarded = false;
};

struct TokenizerConfig;  // model/tokenizer/tokenizer_config.h

// What decoding does to the beginning of a text, to undo what encoding did.
enum class TextStart { kAsIs, kDropBlank, kDropBlanksOfFirstToken };

// Immutable after construction; thread-safe. Ids equal those that the owner of the file's format
// gives: the Hugging Face `tokenizers` library, Kimi's own class over tiktoken, SentencePiece.
// Decoding follows `tokenizers` for all of them.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // tokenizer.json (https://huggingface.co/docs/tokenizers): BPE and Unigram. InvalidArgument
  // naming the field for anything malformed or unsupported.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromTokenizerJson(std::string_view json);
  // The tokenizer inside a GGUF file: keys tokenizer.ggml.*, model "gpt2" (byte-level BPE).
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromGguf(const GgufFile& file);

  // tiktoken.model, a list of ranks; see tokenizer_tiktoken.h.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromTiktoken(std::string_view ranks,
                                                                 const TokenizerConfig& config);
  // tokenizer.model of SentencePiece; see sentencepiece.h.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromSentencePiece(
      std::string_view model, const TokenizerConfig& config);

  // InvalidArgument when `text` is not UTF-8. Linear time in the text's length.
  virtual absl::StatusOr<std::vector<TokenId>> Encode(std::string_view text,
                                                      const EncodeOptions& options) const = 0;
  // The bytes of one token: for a special token its text. Empty for an id without a token.
  virtual std::string_view TokenBytes(TokenId id) const = 0;
  virtual bool IsSpecial(TokenId id) const = 0;
  // Whether the token stands for one byte of a character that has no token of its own. Bytes count
  // only as a whole run of such tokens: one that is not UTF-8 becomes one U+FFFD a byte.
  virtual bool IsByteFallback(TokenId) const { return false; }
  virtual TextStart text_start() const { return TextStart::kAsIs; }
  // One more than the largest id that has a token.
  virtual uint32_t vocab_size() const = 0;
  // Ids of the tokens flagged as special, and their texts (for guarding user text in templates).
  virtual const std::vector<TokenId>& special_tokens() const = 0;
  // The id whose text is exactly `token`, if there is one.
  virtual absl::StatusOr<TokenId> IdOf(std::string_view token) const = 0;

  // All of `ids` at once; invalid UTF-8 becomes U+FFFD. InvalidArgument for an id outside the
  // vocabulary.
  absl::StatusOr<std::string> Decode(std::span<const TokenId> ids, bool skip_special) const;
};

// Incremental decoding of one stream of tokens. Emits only whole characters: bytes of an unfinished
// UTF-8 sequence are held back until it is complete or proven invalid, and a run of byte-fallback
// tokens until it ends. For any cutting of the same
// ids into calls, the concatenated output is the same. Thread-compatible; `tokenizer` must outlive
// it.
class IncrementalDetokenizer {
 public:
  explicit IncrementalDetokenizer(const Tokenizer* tokenizer, bool skip_special = true)
      : tokenizer_(tokenizer), skip_special_(skip_special) {}

  // The text that became certain with this token.
  std::string Push(TokenId id);
  // What is held back, invalid bytes as U+FFFD; afterwards the object is as new.
  std::string Finish();

 private:
  std::string FlushRun();
  // What text_start() leaves of `text`, which comes next; `first` if from the first token.
  std::string TrimStart(std::string text, bool first);

  const Tokenizer* tokenizer_;
  bool skip_special_;
  std::string pending_;     // an unfinished character
  std::string run_;         // the bytes of byte-fallback tokens
  bool any_token_ = false;  // pushed and not skipped
  bool any_text_ = false;
};

}  // namespace essor::model
