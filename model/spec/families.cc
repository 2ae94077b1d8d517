#include "model/spec/families.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/check.h"
#include "common/status_macros.h"

namespace essor::model {

// One file each.
extern const ModelFamily kDeepseekV32Family;
extern const ModelFamily kDeepseekV3Family;
extern const ModelFamily kErnie45Family;
extern const ModelFamily kErnie45MoeFamily;
extern const ModelFamily kGlm4Family;
extern const ModelFamily kGlm4MoeFamily;
extern const ModelFamily kGlmFamily;
extern const ModelFamily kKimiK2Family;
extern const ModelFamily kLlamaFamily;
extern const ModelFamily kMiniMaxM2Family;
extern const ModelFamily kMixtralFamily;
extern const ModelFamily kQwen2Family;
extern const ModelFamily kQwen3Family;
extern const ModelFamily kQwen3MoeFamily;

namespace {

constexpr const ModelFamily* kFamilies[] = {
    &kDeepseekV32Family, &kDeepseekV3Family, &kErnie45Family, &kErnie45MoeFamily, &kGlm4Family,
    &kGlm4MoeFamily,     &kGlmFamily,        &kKimiK2Family,  &kLlamaFamily,      &kMiniMaxM2Family,
    &kMixtralFamily,     &kQwen2Family,      &kQwen3Family,   &kQwen3MoeFamily,
};

const ModelFamily* FindFamily(const std::string& model_type) {
  for (const ModelFamily* family : kFamilies) {
    if (family->model_type == model_type) return family;
  }
  return nullptr;
}

}  // namespace

std::vector<std::string> KnownFamilies() {
  std::vector<std::string> names;
  for (const ModelFamily* family : kFamilies) names.emplace_back(family->model_type);
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<ModelSpec> SpecFromConfig(const ConfigView& config) {
  ESSOR_ASSIGN_OR_RETURN(const std::string model_type, config.String("model_type"));
  const ModelFamily* family = FindFamily(model_type);
  if (family == nullptr) {
    return config.Error("model_type", absl::StrCat("unknown family \"", model_type, "\"; known: ",
                                                   absl::StrJoin(KnownFamilies(), ", ")));
  }
  return family->make_spec(config);
}

std::vector<WeightBinding> BindingsOf(const ModelSpec& spec, const TensorExists& exists) {
  const ModelFamily* family = FindFamily(spec.family);
  ESSOR_CHECK(family != nullptr);
  return family->bind(spec, exists);
}

bool IsDraftTensor(const ModelSpec& spec, const std::string& name) {
  const ModelFamily* family = FindFamily(spec.family);
  return family != nullptr && family->is_draft != nullptr && family->is_draft(spec, name);
}

}  // namespace essor::model
