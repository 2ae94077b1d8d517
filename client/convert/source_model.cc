#include "client/convert/source_model.h"

#include <filesystem>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "model/checkpoint/gguf_names.h"
#include "model/source/checkpoint_bindings.h"
#include "model/source/text_files.h"
#include "model/spec/config_view.h"
#include "model/spec/families.h"

namespace essor::client {
namespace {

namespace fs = std::filesystem;

absl::Status OpenGguf(SourceModel& source) {
  ESSOR_ASSIGN_OR_RETURN(std::unique_ptr<model::GgufFile> file, model::GgufFile::Open(source.path));
  source.gguf = file.get();
  source.checkpoint = std::move(file);
  ESSOR_ASSIGN_OR_RETURN(source.config_json, model::GgufConfigToHf(*source.gguf));
  return absl::OkStatus();
}

absl::Status OpenDirectory(const std::string& config_file, SourceModel& source) {
  ESSOR_ASSIGN_OR_RETURN(source.config_json,
                         model::ReadTextFile(config_file, model::kMaxConfigBytes));
  ESSOR_ASSIGN_OR_RETURN(const model::ConfigView config,
                         model::ConfigView::Parse(source.config_json, config_file));
  if (config.Has("quantization_config")) {
    return config.Error("quantization_config", "quantised checkpoints cannot be converted");
  }
  ESSOR_ASSIGN_OR_RETURN(source.checkpoint, model::OpenSafetensors(source.path));
  return absl::OkStatus();
}

}  // namespace

bool IsGgufPath(const std::string& path) { return fs::path(path).extension() == ".gguf"; }

absl::StatusOr<SourceModel> SourceModel::Open(const std::string& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return absl::NotFoundError(absl::StrCat(path, ": does not exist"));
  SourceModel source;
  source.path = path;
  const bool is_gguf = IsGgufPath(path);
  const std::string config_file = is_gguf ? path : (fs::path(path) / "config.json").string();
  ESSOR_RETURN_IF_ERROR(is_gguf ? OpenGguf(source) : OpenDirectory(config_file, source));
  ESSOR_ASSIGN_OR_RETURN(const model::ConfigView config,
                         model::ConfigView::Parse(source.config_json, config_file));
  ESSOR_ASSIGN_OR_RETURN(source.spec, model::SpecFromConfig(config));
  ESSOR_ASSIGN_OR_RETURN(std::vector<model::WeightBinding> bindings,
                         is_gguf
                             ? model::BindGguf(source.spec, *source.gguf)
                             : model::BindCheckpoint(source.spec, *source.checkpoint, config_file));
  for (model::WeightBinding& binding : bindings) {
    ESSOR_ASSIGN_OR_RETURN(model::TensorView tensor, source.checkpoint->Find(binding.tensor));
    source.weights.push_back({.binding = std::move(binding), .tensor = std::move(tensor)});
  }
  return source;
}

}  // namespace essor::client
