// Reads tokenizer.json (https://huggingface.co/docs/tokenizers).
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "model/tokenizer/json_fields.h"
#include "model/tokenizer/tokenizer_definition.h"

namespace essor::model {

// InvalidArgument naming the field for anything malformed, and the type for anything unsupported.
// `truncation` and `padding` are ignored: they are settings of a training run, and a server neither
// cuts nor pads. A null `decoder` is read as ByteLevel, which byte-level tokens call for.
absl::StatusOr<TokenizerDefinition> ParseTokenizerJson(std::string_view json);

// The parts other than vocabulary and added tokens. Each appends its steps to `definition`.
absl::Status ParseNormalizer(const JsonObject& root, TokenizerDefinition* definition);
absl::Status ParsePreTokenizer(const JsonObject& root, TokenizerDefinition* definition);
absl::Status ParsePostProcessor(const JsonObject& root, TokenizerDefinition* definition);
// Only checks that decoding is byte-level.
absl::Status ParseDecoder(const JsonObject& root);

}  // namespace essor::model
