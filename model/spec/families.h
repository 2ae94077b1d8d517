// The model families Essor knows, by Hugging Face `model_type`. A family is one file in this folder
// and one line in families.cc.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/spec/config_view.h"
#include "model/spec/model_spec.h"

namespace essor::model {

// Whether the checkpoint holds a tensor of that Hugging Face name. Families with several published
// layouts choose by it; it says nothing about shapes, which the caller checks against the bindings.
using TensorExists = std::function<bool(const std::string& name)>;

// How one kind of checkpoint maps to a ModelSpec.
struct ModelFamily {
  const char* model_type;
  // Draft layers that could be held stand in draft_layers.
  absl::StatusOr<ModelSpec> (*make_spec)(const ConfigView& config);
  std::vector<WeightBinding> (*bind)(const ModelSpec& spec, const TensorExists& exists);
  // Whether a tensor belongs to layers that guess tokens ahead; null where the family has none.
  bool (*is_draft)(const ModelSpec& spec, const std::string& tensor) = nullptr;
  // Whether a tensor of the family's checkpoints is of no use here: a table that follows from the
  // config. Null where there are none.
  bool (*is_unused)(const ModelSpec& spec, const std::string& tensor) = nullptr;
};

// A checkpoint of several modalities of which the language model is served. Its config is the
// object `text_config`, its tensors stand under a prefix; those of the other parts are skipped.
struct MultimodalFamily {
  const char* model_type;
  const ModelFamily* text;
  const char* prefix;                           // "language_model."
  std::span<const char* const> other_prefixes;  // of tensors that are not the language model's
};

// Sorted values of model_type.
std::vector<std::string> KnownFamilies();

// The spec of a config.json, of several modalities that of its language model; `family` is its
// model_type. InvalidArgument naming file and key: an unknown model_type (the known ones are
// listed), a missing, malformed, contradictory or unsupported value. Draft layers can be loaded
// where each is a full layer behind the last one with `num_nextn_predict_layers` of them (DeepSeek
// V3 and V3.2, GLM-4.5); kLoad is refused of other families, and where the config says that there
// are none.
absl::StatusOr<ModelSpec> SpecFromConfig(const ConfigView& config,
                                         DraftLayers draft_layers = DraftLayers::kSkip);

// "skip", "load"; InvalidArgument naming both for anything else.
absl::StatusOr<DraftLayers> ParseDraftLayers(const std::string& text);

// Where the weights of `spec` (made by SpecFromConfig) stand: one binding per logical weight, in
// LogicalWeights() order, with Hugging Face names.
std::vector<WeightBinding> BindingsOf(const ModelSpec& spec, const TensorExists& exists);

// Whether a tensor of that name belongs to layers that guess tokens ahead and are not loaded.
bool IsDraftTensor(const ModelSpec& spec, const std::string& name);
// Whether the model runs without a tensor of that name, which its checkpoints may hold: a table
// that follows from the config, or a part of a multimodal checkpoint that is not its language
// model.
bool IsUnusedTensor(const ModelSpec& spec, const std::string& name);

// What stands before all names of BindingsOf(): empty but for multimodal families.
std::string TensorPrefix(const ModelSpec& spec);

}  // namespace essor::model
