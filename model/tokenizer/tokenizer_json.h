// Reads tokenizer.json (https://huggingface.co/docs/tokenizers).
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "model/tokenizer/json_fields.h"
#include "model/tokenizer/tokenizer_definition.h"

namespace essor::model {

// InvalidArgument naming the field for anything malformed, and the type for anything unsupported.
// A file whose pre-tokeniser does not end in ByteLevel has a vocabulary of plain text.
// `truncation` and `padding` are ignored: they are settings of a training run, and a server neither
// cuts nor pads. A null `decoder` is read as ByteLevel where tokens are byte-level; otherwise it is
// refused.
absl::StatusOr<TokenizerDefinition> ParseTokenizerJson(std::string_view json);

// The parts other than vocabulary and added tokens. Each appends its steps to `definition`.
absl::Status ParseNormalizer(const JsonObject& root, TokenizerDefinition* definition);
absl::Status ParsePreTokenizer(const JsonObject& root, TokenizerDefinition* definition);
absl::Status ParsePostProcessor(const JsonObject& root, TokenizerDefinition* definition);
// After the model: how a byte-level vocabulary decodes is only checked. Decoders of plain text are
// Replace or Metaspace on the tokens, ByteFallback, then Fuse and Strip on the whole text; others,
// and other orders, are refused.
absl::Status ParseDecoder(const JsonObject& root, TokenizerDefinition* definition);

// `special` and the flags of AddedToken, as they stand beside a token's text.
absl::Status ParseAddedTokenFlags(const JsonObject& object, AddedToken* token);

}  // namespace essor::model
