// The model to be converted, whatever its files look like.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/gguf.h"
#include "model/spec/model_spec.h"

namespace essor::client {

// One weight of the spec and where its bytes are.
struct SourceWeight {
  model::WeightBinding binding;
  model::TensorView tensor;
};

// Immutable after opening.
struct SourceModel {
  std::string path;
  std::string config_json;  // Hugging Face form
  model::ModelSpec spec;
  std::vector<SourceWeight> weights;              // every weight of the spec, in its order
  const model::GgufFile* gguf = nullptr;          // set when the source is a GGUF file
  std::unique_ptr<model::Checkpoint> checkpoint;  // owns `gguf`, too

  // NotFound for a missing path; InvalidArgument naming file, key or tensor for an unknown family,
  // a quantised directory, tensors that do not fit the config.
  static absl::StatusOr<SourceModel> Open(const std::string& path);
};

// True for a path that names a GGUF file.
bool IsGgufPath(const std::string& path);

}  // namespace essor::client
