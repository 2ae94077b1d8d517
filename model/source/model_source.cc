#include "model/source/model_source.h"

#include <filesystem>
#include <string_view>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "model/checkpoint/gguf_names.h"
#include "model/source/checkpoint_bindings.h"
#include "model/source/text_files.h"
#include "model/spec/config_view.h"
#include "model/spec/families.h"
#include "model/spec/quantization_config.h"

namespace essor::model {
namespace {

namespace fs = std::filesystem;

enum class PathKind { kDirectory, kGguf, kOtherFile };

absl::StatusOr<PathKind> KindOf(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found) {
    return absl::NotFoundError(absl::StrCat(path, ": no such file or directory"));
  }
  if (error) return absl::InvalidArgumentError(absl::StrCat(path, ": ", error.message()));
  if (status.type() == fs::file_type::directory) return PathKind::kDirectory;
  return path.ends_with(".gguf") ? PathKind::kGguf : PathKind::kOtherFile;
}

absl::Status NotAModel(const std::string& path) {
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": a model is a Hugging Face directory or a .gguf file"));
}

// What the name of a model's first GGUF file says besides that it is the first: "-00001-of-00003".
std::string WithoutSplit(const std::string& stem) {
  constexpr std::string_view kFirst = "-00001-of-";
  constexpr size_t kDigits = 5;
  if (stem.size() <= kFirst.size() + kDigits) return stem;
  const size_t at = stem.size() - kFirst.size() - kDigits;
  return stem.compare(at, kFirst.size(), kFirst) == 0 ? stem.substr(0, at) : stem;
}

std::string NameOf(const std::string& path) {
  fs::path name = fs::path(path).lexically_normal();
  if (!name.has_filename()) name = name.parent_path();  // "models/x/"
  // "." has no name of its own.
  std::error_code error;
  if (name == "." || name == "..") name = fs::canonical(path, error);
  return name.extension() == ".gguf" ? WithoutSplit(name.stem().string())
                                     : name.filename().string();
}

// FNV-1a, 64 bit: tells models apart, no defence against forgery.
uint64_t Fnv1a(std::string_view text) {
  uint64_t hash = 14695981039346656037u;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211u;
  return hash;
}

std::string FingerprintOf(const std::string& config, const Checkpoint& checkpoint) {
  return absl::StrFormat("%016x", Fnv1a(absl::StrCat(config, checkpoint.Fingerprint())));
}

// generation_config.json overrides the config's end tokens, as it does in transformers.
absl::Status ReadGenerationConfig(const ConfigView& config, ModelSpec& spec,
                                  GenerationDefaults& defaults) {
  ESSOR_ASSIGN_OR_RETURN(const auto eos, config.Integers("eos_token_id"));
  std::vector<TokenId> tokens;
  for (const int64_t id : eos) {
    if (id < 0 || id >= static_cast<int64_t>(spec.vocab_size)) {
      return config.Error("eos_token_id",
                          absl::StrCat(id, " is outside the vocabulary of ", spec.vocab_size));
    }
    tokens.push_back(static_cast<TokenId>(id));
  }
  if (!tokens.empty()) spec.eos_tokens = std::move(tokens);

  if (config.Has("temperature")) {
    ESSOR_ASSIGN_OR_RETURN(defaults.temperature, config.Number("temperature"));
  }
  if (config.Has("top_p")) {
    ESSOR_ASSIGN_OR_RETURN(defaults.top_p, config.Number("top_p"));
  }
  if (config.Has("top_k")) {
    ESSOR_ASSIGN_OR_RETURN(const double top_k, config.Number("top_k"));
    if (!(top_k >= 0 && top_k <= 1e9)) return config.Error("top_k", "out of range");
    defaults.top_k = static_cast<int32_t>(top_k);
  }
  return absl::OkStatus();
}

absl::Status OpenGenerationConfig(const std::string& directory, ModelSource& source) {
  const std::string path = directory + "/generation_config.json";
  const absl::StatusOr<std::string> text = ReadTextFile(path, kMaxConfigBytes);
  if (absl::IsNotFound(text.status())) return absl::OkStatus();
  ESSOR_RETURN_IF_ERROR(text.status());
  ESSOR_ASSIGN_OR_RETURN(const ConfigView config, ConfigView::Parse(*text, path));
  return ReadGenerationConfig(config, source.spec, source.generation);
}

absl::Status OpenDirectory(const std::string& directory, DraftLayers draft_layers,
                           ModelSource& source) {
  const std::string config_path = directory + "/config.json";
  ESSOR_ASSIGN_OR_RETURN(const std::string config_text, ReadTextFile(config_path, kMaxConfigBytes));
  ESSOR_ASSIGN_OR_RETURN(const ConfigView config, ConfigView::Parse(config_text, config_path));
  ESSOR_ASSIGN_OR_RETURN(source.spec, SpecFromConfig(config, draft_layers));
  ESSOR_RETURN_IF_ERROR(OpenGenerationConfig(directory, source));
  ESSOR_ASSIGN_OR_RETURN(source.checkpoint, OpenSafetensors(directory));
  ESSOR_ASSIGN_OR_RETURN(source.bindings,
                         BindCheckpoint(source.spec, *source.checkpoint, config_path));
  ESSOR_ASSIGN_OR_RETURN(source.tokenizer, OpenTokenizer(directory));
  ESSOR_ASSIGN_OR_RETURN(source.chat_template, OpenChatTemplate(directory));
  source.fingerprint = FingerprintOf(config_text, *source.checkpoint);
  return absl::OkStatus();
}

absl::Status OpenGguf(const std::string& path, ModelSource& source) {
  ESSOR_ASSIGN_OR_RETURN(std::unique_ptr<GgufFile> file, GgufFile::Open(path));
  ESSOR_ASSIGN_OR_RETURN(const std::string config_text, GgufConfigToHf(*file));
  ESSOR_ASSIGN_OR_RETURN(const ConfigView config, ConfigView::Parse(config_text, path));
  ESSOR_ASSIGN_OR_RETURN(source.spec, SpecFromConfig(config));
  ESSOR_ASSIGN_OR_RETURN(source.bindings, BindGguf(source.spec, *file));
  ESSOR_ASSIGN_OR_RETURN(source.tokenizer, OpenTokenizer(*file));
  ESSOR_ASSIGN_OR_RETURN(source.chat_template, OpenChatTemplate(*file));
  source.fingerprint = FingerprintOf(config_text, *file);
  source.checkpoint = std::move(file);
  return absl::OkStatus();
}

// Of several modalities: what the whole checkpoint names, else what its language model does.
absl::StatusOr<DType> TypeNamed(const ConfigView& config) {
  ESSOR_ASSIGN_OR_RETURN(const std::optional<DType> quantised, QuantisedType(config));
  if (quantised.has_value()) return *quantised;
  const bool named = config.Has("dtype") || config.Has("torch_dtype");
  if (config.IsObject("text_config")) {
    ESSOR_ASSIGN_OR_RETURN(const ConfigView text, config.Object("text_config"));
    if (!named || text.Has("quantization_config")) return TypeNamed(text);
  }
  const std::string key = config.Has("dtype") ? "dtype" : "torch_dtype";
  ESSOR_ASSIGN_OR_RETURN(const std::string name, config.StringOr(key, "bfloat16"));
  if (name == "bfloat16") return DType::kBF16;
  if (name == "float16") return DType::kF16;
  if (name == "float32") return DType::kF32;
  return config.Error(key, absl::StrCat("\"", name, "\" is not one of bfloat16, float16, float32"));
}

absl::StatusOr<std::string> ConfigTextOfGguf(const std::string& path) {
  ESSOR_ASSIGN_OR_RETURN(const auto file, GgufFile::Open(path));
  return GgufConfigToHf(*file);
}

// config.json of a directory, a JSON file, or what a GGUF file says instead.
absl::StatusOr<ConfigView> OpenConfig(const std::string& path) {
  ESSOR_ASSIGN_OR_RETURN(const PathKind kind, KindOf(path));
  const std::string file = kind == PathKind::kDirectory ? path + "/config.json" : path;
  ESSOR_ASSIGN_OR_RETURN(const std::string text, kind == PathKind::kGguf
                                                     ? ConfigTextOfGguf(path)
                                                     : ReadTextFile(file, kMaxConfigBytes));
  return ConfigView::Parse(text, file);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelSource>> ModelSource::Open(const std::string& path,
                                                               DraftLayers draft_layers) {
  ESSOR_ASSIGN_OR_RETURN(const PathKind kind, KindOf(path));
  if (kind == PathKind::kOtherFile) return NotAModel(path);
  if (kind == PathKind::kGguf && draft_layers == DraftLayers::kLoad) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": draft layers of GGUF files cannot be loaded"));
  }
  auto source = std::make_unique<ModelSource>();
  source->path = path;
  source->name = NameOf(path);
  ESSOR_RETURN_IF_ERROR(kind == PathKind::kGguf ? OpenGguf(path, *source)
                                                : OpenDirectory(path, draft_layers, *source));
  source->stored = PredominantType(source->bindings);
  return source;
}

absl::StatusOr<TextFiles> OpenTextFiles(const std::string& path) {
  ESSOR_ASSIGN_OR_RETURN(const PathKind kind, KindOf(path));
  if (kind == PathKind::kOtherFile) return NotAModel(path);
  TextFiles files;
  if (kind == PathKind::kGguf) {
    ESSOR_ASSIGN_OR_RETURN(const auto file, GgufFile::Open(path));
    ESSOR_ASSIGN_OR_RETURN(files.tokenizer, OpenTokenizer(*file));
    ESSOR_ASSIGN_OR_RETURN(files.chat_template, OpenChatTemplate(*file));
  } else {
    ESSOR_ASSIGN_OR_RETURN(files.tokenizer, OpenTokenizer(path));
    ESSOR_ASSIGN_OR_RETURN(files.chat_template, OpenChatTemplate(path));
  }
  if (files.tokenizer == nullptr) {
    return absl::NotFoundError(
        absl::StrCat(path, kind == PathKind::kGguf ? ": no tokenizer inside (tokenizer.ggml.model)"
                                                   : ": no tokenizer.json, tiktoken.model "
                                                     "or tokenizer.model"));
  }
  return files;
}

absl::StatusOr<ModelSpec> OpenSpec(const std::string& path) {
  ESSOR_ASSIGN_OR_RETURN(const ConfigView config, OpenConfig(path));
  return SpecFromConfig(config);
}

absl::StatusOr<DType> OpenStoredType(const std::string& path) {
  ESSOR_ASSIGN_OR_RETURN(const ConfigView config, OpenConfig(path));
  if (!path.ends_with(".gguf")) return TypeNamed(config);
  ESSOR_ASSIGN_OR_RETURN(const ModelSpec spec, SpecFromConfig(config));
  ESSOR_ASSIGN_OR_RETURN(const auto file, GgufFile::Open(path));
  ESSOR_ASSIGN_OR_RETURN(const auto bindings, BindGguf(spec, *file));
  return PredominantType(bindings);
}

}  // namespace essor::model
