// Writes tokenizer.json, the inverse of model/tokenizer's reader.
#pragma once

#include <string>
#include <vector>

#include "model/tokenizer/tokenizer_definition.h"

namespace essor::client {

// The file's text, in the form of the `tokenizers` library.
std::string TokenizerJson(const model::TokenizerDefinition& definition);

// Only "normalizer" and "pre_tokenizer" and ignore_merges: equal texts mean equal cutting.
std::string SplittingJson(const model::TokenizerDefinition& definition);

}  // namespace essor::client
