// Everything a model directory or GGUF file holds, opened and checked against each other.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/chat/chat_template.h"
#include "model/checkpoint/checkpoint.h"
#include "model/spec/model_spec.h"
#include "model/tokenizer/tokenizer.h"

namespace essor::model {

// Defaults of generation_config.json, where the model has them.
struct GenerationDefaults {
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<int32_t> top_k;
};

// Immutable after opening; thread-safe.
struct ModelSource {
  std::string path;
  std::string name;  // last component of the path, without .gguf
  ModelSpec spec;
  std::vector<WeightBinding> bindings;
  std::unique_ptr<Checkpoint> checkpoint;
  std::string fingerprint;      // of config and checkpoint
  DType stored = DType::kBF16;  // type of most matrix bytes
  GenerationDefaults generation;
  std::unique_ptr<Tokenizer> tokenizer;         // null when the model has none
  std::unique_ptr<ChatTemplate> chat_template;  // null when the model has none

  // Opens all of it. NotFound for a missing path or file; InvalidArgument naming file, config key
  // or tensor for an unknown family (lists the known ones), missing tensors, shapes that contradict
  // the config, or draft layers that cannot be loaded (SpecFromConfig; of .gguf files none can).
  static absl::StatusOr<std::unique_ptr<ModelSource>> Open(
      const std::string& path, DraftLayers draft_layers = DraftLayers::kSkip);
};

// Only tokenizer and chat template; needs no config and no weights. `path` is a directory or .gguf.
struct TextFiles {
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<ChatTemplate> chat_template;  // null when there is none
};
absl::StatusOr<TextFiles> OpenTextFiles(const std::string& path);

// Only config.json (a directory, the file itself, or a .gguf): enough for planning.
absl::StatusOr<ModelSpec> OpenSpec(const std::string& path);

// The type in which most weights of the model are stored, for planning: of a .gguf what its tensors
// say, of a config f8_e4m3 where its `quantization_config` says so, else `dtype` or `torch_dtype`
// (bfloat16 when it says neither). No weights are needed.
absl::StatusOr<DType> OpenStoredType(const std::string& path);

}  // namespace essor::model
