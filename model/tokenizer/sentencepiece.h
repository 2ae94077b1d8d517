// Reads tokenizer.model of SentencePiece (https://github.com/google/sentencepiece,
// src/sentencepiece_model.proto).
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "model/tokenizer/tokenizer_config.h"
#include "model/tokenizer/tokenizer_definition.h"

namespace essor::model {

// The largest file read; those in use have 0.5 to 5 MB. Bounds the time that finding the merges
// takes.
inline constexpr size_t kSentencePieceBytesMax = size_t{64} << 20;

// BPE and unigram models. Control pieces and the unknown one become special tokens, user-defined
// ones added tokens that always match (in the normalised text); added_tokens_decoder overrides and
// adds. BOS and EOS: AddBosAndEos(). Without special tokens in it, a text's ids equal those of
// SentencePiece; scores of unigram models are added up in double precision, not single. Decoding is
// that of the decoders which transformers gives these files (Replace, ByteFallback, Fuse, Strip):
// a run of byte tokens that is not UTF-8 becomes U+FFFD as a whole, and the first blank of a text
// is dropped wherever it comes from. InvalidArgument naming the piece or field for anything
// malformed, and for what is not supported: word and character models, a precompiled character map
// (every normalisation but "identity"), blanks as suffixes, unused pieces in BPE.
absl::StatusOr<TokenizerDefinition> ParseSentencePiece(std::string_view model,
                                                       const TokenizerConfig& config);

}  // namespace essor::model
