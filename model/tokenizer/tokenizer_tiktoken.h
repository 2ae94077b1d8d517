// Reads tiktoken.model, a list of byte strings in the order of merging
// (https://github.com/openai/tiktoken, load_tiktoken_bpe): lines of a token in base64, a blank, and
// its rank, which is also its id.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "model/tokenizer/tokenizer_config.h"
#include "model/tokenizer/tokenizer_definition.h"

namespace essor::model {

// The largest file read; those in use have 3 MB. Bounds the time that finding the merges takes.
inline constexpr size_t kTiktokenBytesMax = size_t{32} << 20;

// TIKTOKEN_MAX_ENCODE_CHARS and MAX_NO_WHITESPACES_CHARS of tokenization_kimi.py.
inline constexpr ChunkLimits kKimiChunks = {.characters_max = 400'000, .run_max = 25'000};

// The tokenizer of Kimi K2 and Moonlight (tokenization_kimi.py of their checkpoints): the file
// holds ranks only, so the pre-tokeniser is known from the name tiktoken.model. As there, long
// texts and long runs without white space are cut first, through special tokens too. The 256 ids
// behind the ranks are special tokens: those of added_tokens_decoder, and "<|reserved_token_ID|>".
// Nothing is put around a text unless add_bos_token or add_eos_token say so. InvalidArgument naming
// the line for anything malformed, a rank that is missing or given twice, and a byte without a
// token.
absl::StatusOr<TokenizerDefinition> ParseTiktoken(std::string_view ranks,
                                                  const TokenizerConfig& config);

}  // namespace essor::model
