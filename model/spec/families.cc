#include "model/spec/families.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/check.h"
#include "common/status_macros.h"
#include "model/spec/decoder_bindings.h"
#include "model/spec/quantization_config.h"

namespace essor::model {

// One file each.
extern const ModelFamily kDeepseekV32Family;
extern const ModelFamily kDeepseekV3Family;
extern const ModelFamily kErnie45Family;
extern const ModelFamily kErnie45MoeFamily;
extern const ModelFamily kGlm4Family;
extern const ModelFamily kGlm4MoeFamily;
extern const ModelFamily kGlmFamily;
extern const ModelFamily kGptOssFamily;
extern const ModelFamily kKimiK2Family;
extern const MultimodalFamily kKimiK25Family;
extern const ModelFamily kLlama4TextFamily;
extern const ModelFamily kLlamaFamily;
extern const MultimodalFamily kLlama4Family;
extern const ModelFamily kMiniMaxFamily;
extern const ModelFamily kMiniMaxM1Family;
extern const ModelFamily kMiniMaxM2Family;
extern const ModelFamily kMiniMaxText01Family;
extern const ModelFamily kMixtralFamily;
extern const ModelFamily kQwen2Family;
extern const ModelFamily kQwen2MoeFamily;
extern const ModelFamily kQwen3Family;
extern const ModelFamily kQwen3MoeFamily;
extern const ModelFamily kQwen3NextFamily;

namespace {

constexpr const ModelFamily* kFamilies[] = {
    &kDeepseekV32Family, &kDeepseekV3Family, &kErnie45Family,       &kErnie45MoeFamily,
    &kGlm4Family,        &kGlm4MoeFamily,    &kGlmFamily,           &kGptOssFamily,
    &kKimiK2Family,      &kLlamaFamily,      &kLlama4TextFamily,    &kMiniMaxFamily,
    &kMiniMaxM1Family,   &kMiniMaxM2Family,  &kMiniMaxText01Family, &kMixtralFamily,
    &kQwen2Family,       &kQwen2MoeFamily,   &kQwen3Family,         &kQwen3MoeFamily,
    &kQwen3NextFamily,
};
constexpr const MultimodalFamily* kMultimodalFamilies[] = {&kKimiK25Family, &kLlama4Family};

template <typename Family, size_t kCount>
const Family* Find(const Family* const (&families)[kCount], const std::string& model_type) {
  for (const Family* family : families) {
    if (family->model_type == model_type) return family;
  }
  return nullptr;
}

// The family that reads the language model of such a checkpoint.
const ModelFamily* FindTextFamily(const std::string& model_type) {
  const MultimodalFamily* multimodal = Find(kMultimodalFamilies, model_type);
  return multimodal != nullptr ? multimodal->text : Find(kFamilies, model_type);
}

// The object that describes the language model. What stands outside of it is read for what would
// change how the tensors are to be understood.
absl::StatusOr<ConfigView> TextConfig(const ConfigView& config, const MultimodalFamily& family) {
  ESSOR_RETURN_IF_ERROR(QuantisedType(config).status());
  ESSOR_ASSIGN_OR_RETURN(ConfigView text, config.Object("text_config"));
  ESSOR_ASSIGN_OR_RETURN(const std::string type, text.StringOr("model_type", family.model_type));
  // Vendors may leave the wrapper's own name inside.
  const bool own = type == family.model_type || type == family.text->model_type;
  const ModelFamily* const named = FindTextFamily(type);
  if (!own && (named == nullptr || named->make_spec != family.text->make_spec)) {
    return text.Error("model_type", absl::StrCat("\"", type, "\" is not the language model of ",
                                                 family.model_type));
  }
  return text;
}

// What one of the family's predicates says of a tensor of the language model.
bool Says(bool (*ModelFamily::*predicate)(const ModelSpec&, const std::string&),
          const ModelSpec& spec, const std::string& name) {
  const ModelFamily* family = FindTextFamily(spec.family);
  const std::string prefix = TensorPrefix(spec);
  return family != nullptr && family->*predicate != nullptr && name.starts_with(prefix) &&
         (family->*predicate)(spec, name.substr(prefix.size()));
}

// Whether `spec`, as its family made it, has draft layers to be loaded; else says why not.
absl::Status CheckDraftLayers(const ConfigView& config, const ModelFamily& family,
                              const ModelSpec& spec) {
  // Limits of what all layers have together were checked without them.
  if (spec.draft_layers.size() > spec.layers.size()) {
    return config.Error("num_nextn_predict_layers",
                        absl::StrCat(spec.draft_layers.size(), " draft layers behind ",
                                     spec.layers.size(), " layers are too many to load"));
  }
  if (!spec.draft_layers.empty()) return absl::OkStatus();
  const std::string asked = absl::StrCat("draft layers were asked for, but \"", spec.family, "\" ");
  const bool counted = family.is_draft == IsLayerBehindTheLast;
  if (family.is_draft == nullptr || (counted && spec.num_draft_layers == 0)) {
    return config.Error("model_type", absl::StrCat(asked, "has none here"));
  }
  return config.Error(
      "model_type",
      absl::StrCat(asked,
                   "keeps them in a form that is not supported: only full layers with "
                   "experts behind the last one are (num_nextn_predict_layers)"));
}

}  // namespace

std::vector<std::string> KnownFamilies() {
  std::vector<std::string> names;
  for (const ModelFamily* family : kFamilies) names.emplace_back(family->model_type);
  for (const MultimodalFamily* family : kMultimodalFamilies) names.emplace_back(family->model_type);
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<DraftLayers> ParseDraftLayers(const std::string& text) {
  if (text == "skip") return DraftLayers::kSkip;
  if (text == "load") return DraftLayers::kLoad;
  return absl::InvalidArgumentError(
      absl::StrCat("draft layers: \"", text, "\" is not skip or load"));
}

absl::StatusOr<ModelSpec> SpecFromConfig(const ConfigView& config, DraftLayers draft_layers) {
  ESSOR_ASSIGN_OR_RETURN(const std::string model_type, config.String("model_type"));
  const ModelFamily* family = FindTextFamily(model_type);
  if (family == nullptr) {
    return config.Error("model_type", absl::StrCat("unknown family \"", model_type, "\"; known: ",
                                                   absl::StrJoin(KnownFamilies(), ", ")));
  }
  const MultimodalFamily* multimodal = Find(kMultimodalFamilies, model_type);
  ESSOR_ASSIGN_OR_RETURN(const ConfigView text, multimodal == nullptr
                                                    ? absl::StatusOr<ConfigView>(config)
                                                    : TextConfig(config, *multimodal));
  ESSOR_ASSIGN_OR_RETURN(ModelSpec spec, family->make_spec(text));
  spec.family = model_type;
  if (draft_layers == DraftLayers::kSkip) {
    spec.draft_layers.clear();
  } else {
    ESSOR_RETURN_IF_ERROR(CheckDraftLayers(text, *family, spec));
  }
  return spec;
}

std::vector<WeightBinding> BindingsOf(const ModelSpec& spec, const TensorExists& exists) {
  const ModelFamily* family = FindTextFamily(spec.family);
  ESSOR_CHECK(family != nullptr);
  const std::string prefix = TensorPrefix(spec);
  std::vector<WeightBinding> bindings =
      family->bind(spec, [&](const std::string& name) { return exists(prefix + name); });
  if (prefix.empty()) return bindings;
  for (WeightBinding& binding : bindings) {
    binding.tensor = prefix + binding.tensor;
    if (!binding.scales.empty()) binding.scales = prefix + binding.scales;
  }
  return bindings;
}

bool IsDraftTensor(const ModelSpec& spec, const std::string& name) {
  return spec.draft_layers.empty() && Says(&ModelFamily::is_draft, spec, name);
}

std::string TensorPrefix(const ModelSpec& spec) {
  const MultimodalFamily* family = Find(kMultimodalFamilies, spec.family);
  return family == nullptr ? "" : family->prefix;
}

bool IsUnusedTensor(const ModelSpec& spec, const std::string& name) {
  const MultimodalFamily* multimodal = Find(kMultimodalFamilies, spec.family);
  if (multimodal != nullptr &&
      std::any_of(multimodal->other_prefixes.begin(), multimodal->other_prefixes.end(),
                  [&](const char* prefix) { return name.starts_with(prefix); })) {
    return true;
  }
  return Says(&ModelFamily::is_unused, spec, name);
}

}  // namespace essor::model
