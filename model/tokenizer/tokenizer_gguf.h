// Reads the tokenizer of a GGUF file
// (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, keys tokenizer.ggml.*).
#pragma once

#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "model/checkpoint/gguf.h"
#include "model/tokenizer/tokenizer_definition.h"

namespace essor::model {

// InvalidArgument naming the key for anything missing, malformed or unsupported. GGUF names the
// pre-tokeniser (tokenizer.ggml.pre) instead of describing it; the names known here are those of
// PreTokenizerSteps() in the .cc. Control tokens become special tokens, user-defined ones added
// tokens that always match. The file records no normaliser; for "qwen2" and "qwen35" it is NFC, as
// in those models' tokenizer.json.
absl::StatusOr<TokenizerDefinition> ParseGgufTokenizer(
    const absl::flat_hash_map<std::string, GgufValue>& metadata);

}  // namespace essor::model
