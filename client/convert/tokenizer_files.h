// The files beside a model's weights: tokenizer, chat template, generation defaults.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/convert/source_model.h"
#include "model/checkpoint/checkpoint_writer.h"

namespace essor::client {

// Writes tokenizer.json, tokenizer_config.json (with the chat template) and generation_config.json
// into `directory`: copies of the source directory's files, or made from the GGUF metadata.
// A source without a tokenizer gives none. InvalidArgument naming the key for a tokenizer that
// cannot be expressed.
absl::Status WriteTextFiles(const SourceModel& source, const std::string& directory);

// The tokenizer as GGUF metadata, sorted by key: copied, or made from the source directory's
// files. Empty for a source without a tokenizer.
absl::StatusOr<model::GgufMetadataList> TokenizerMetadata(const SourceModel& source);

}  // namespace essor::client
