#include "client/convert/convert.h"

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <memory>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "client/convert/config_edit.h"
#include "client/convert/gguf_header.h"
#include "client/convert/source_model.h"
#include "client/convert/tokenizer_files.h"
#include "client/convert/weight_plan.h"
#include "client/convert/weight_stream.h"
#include "common/status_macros.h"
#include "model/checkpoint/checkpoint_writer.h"
#include "model/checkpoint/gguf_metadata.h"
#include "model/checkpoint/output_file.h"
#include "model/spec/config_view.h"
#include "model/spec/families.h"

namespace essor::client {
namespace {

namespace fs = std::filesystem;

const char* NameOf(ConvertType type) {
  switch (type) {
    case ConvertType::kF32:
      return "f32";
    case ConvertType::kQ8_0:
      return "q8_0";
    case ConvertType::kBF16:
      break;
  }
  return "bf16";
}

absl::Status FileError(const std::error_code& error, const char* what, const fs::path& path) {
  return absl::ErrnoToStatus(error.value(), absl::StrCat("cannot ", what, " ", path.string()));
}

// "FILE: X, and converting models with Y is not supported"
absl::Status Unsupported(const SourceModel& source, const std::string& finding,
                         const std::string& kind) {
  return absl::InvalidArgumentError(absl::StrCat(
      source.path, ": ", finding, ", and converting models with ", kind, " is not supported"));
}

absl::Status RefuseUnusualAttention(const SourceModel& source) {
  for (const model::LayerSpec& layer : source.spec.layers) {
    if (std::holds_alternative<model::GroupedQueryAttention>(layer.attention)) continue;
    const bool latent = std::holds_alternative<model::LatentAttention>(layer.attention);
    const bool lightning = std::holds_alternative<model::LightningAttention>(layer.attention);
    const std::string kind = latent      ? "latent attention"
                             : lightning ? "lightning attention"
                                         : "gated delta nets";
    return Unsupported(source, absl::StrCat(source.spec.family, " has ", kind), kind);
  }
  return absl::OkStatus();
}

// Rows are copied as they stand, each weight to a tensor of its own: nothing may have to be turned
// or unpacked, and no weights of the published layout may share a tensor.
absl::Status RefuseUnusualTensors(const SourceModel& source) {
  for (const SourceWeight& weight : source.weights) {
    const std::string tensor = absl::StrCat("tensor ", weight.tensor.name);
    if (weight.binding.transposed) {
      return Unsupported(source, tensor + " is transposed", "transposed tensors");
    }
    if (weight.binding.packed_as.has_value()) {
      return Unsupported(source, tensor + " is packed", "weights of 4 bits");
    }
  }
  absl::flat_hash_set<std::string> names;
  for (const model::WeightBinding& weight : model::BindingsOf(source.spec, PublishedLayout)) {
    if (names.insert(weight.tensor).second) continue;
    return Unsupported(source, absl::StrCat("tensor ", weight.tensor, " holds several weights"),
                       "shared tensors");
  }
  return absl::OkStatus();
}

// Says what is done and how far it is.
class Progress {
 public:
  Progress(const ConvertOptions& options, uint64_t total_bytes)
      : options_(options), total_bytes_(total_bytes) {}

  void Advance(const model::TensorDeclaration& tensor, uint64_t bytes) {
    done_bytes_ += bytes;
    const uint64_t percent = total_bytes_ == 0 ? 100 : done_bytes_ * 100 / total_bytes_;
    if (percent < next_percent_ && done_bytes_ != total_bytes_) return;
    next_percent_ = percent + kStepPercent;
    Say(absl::StrFormat("%3d %% (%d of %d MB) %s", percent, done_bytes_ / 1'000'000,
                        total_bytes_ / 1'000'000, tensor.name));
  }
  void Say(const std::string& line) const {
    if (options_.progress) options_.progress(line);
  }

 private:
  static constexpr uint64_t kStepPercent = 5;
  const ConvertOptions& options_;
  const uint64_t total_bytes_;
  uint64_t done_bytes_ = 0;
  uint64_t next_percent_ = 0;
};

uint64_t BytesOf(const model::TensorDeclaration& tensor) {
  uint64_t elements = 1;
  for (const uint64_t extent : tensor.shape) elements *= extent;
  return StorageBytes(tensor.dtype, elements);
}

absl::Status CheckOutput(const ConvertOptions& options) {
  const fs::path output(options.output);
  std::error_code error;
  if (options.output.empty()) return absl::InvalidArgumentError("the output has no name");
  if (fs::equivalent(options.source, output, error)) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.output, ": is the source itself: name another output"));
  }
  const bool to_gguf = IsGgufPath(options.output);
  const fs::file_status status = fs::status(output, error);
  if (!fs::exists(status)) return absl::OkStatus();
  if (to_gguf == fs::is_directory(status)) {
    return absl::InvalidArgumentError(absl::StrCat(
        options.output, to_gguf ? ": is a directory, not a GGUF file" : ": is not a directory"));
  }
  if (options.overwrite || fs::is_empty(output, error)) return absl::OkStatus();
  return absl::AlreadyExistsError(absl::StrCat(options.output, ": exists and is not empty"));
}

absl::Status CheckOptions(const ConvertOptions& options) {
  if (options.to == ConvertType::kQ8_0 && !IsGgufPath(options.output)) {
    return absl::InvalidArgumentError(absl::StrCat(
        options.output, ": q8_0 can be stored in GGUF files only; name an output ending in .gguf"));
  }
  return CheckOutput(options);
}

absl::StatusOr<std::string> OutputConfig(const SourceModel& source, const ConvertOptions& options) {
  std::string config = source.config_json;
  if (options.upcycle) {
    ESSOR_ASSIGN_OR_RETURN(config, UpcycleConfig(config, *options.upcycle));
  }
  return SetConfigType(config, options.to);
}

absl::Status WriteWeights(const std::vector<OutputTensor>& tensors, model::CheckpointWriter& writer,
                          Progress& progress) {
  WeightStream stream(&writer);
  for (const OutputTensor& tensor : tensors) {
    ESSOR_RETURN_IF_ERROR(stream.Write(tensor));
    progress.Advance(tensor.declaration, BytesOf(tensor.declaration));
  }
  return writer.Finish();
}

// The source's name, which is all that a GGUF file says about where it comes from.
std::string ModelName(const SourceModel& source) {
  if (source.gguf != nullptr) {
    const absl::StatusOr<std::string> name = model::GgufString(*source.gguf, "general.name");
    if (name.ok()) return *name;
  }
  fs::path path = fs::path(source.path).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();  // "dir/"
  return source.gguf != nullptr ? path.stem().string() : path.filename().string();
}

// What is to be written, however it is stored.
struct Conversion {
  const SourceModel& source;
  const std::string& config;
  const model::ModelSpec& spec;
  const std::vector<OutputTensor>& tensors;
  std::vector<model::TensorDeclaration> declarations;
};

// What a GGUF source says about itself, such as its licence, where the new header says nothing.
model::GgufMetadataList OtherGeneralKeys(const SourceModel& source,
                                         const model::GgufMetadataList& header) {
  model::GgufMetadataList list;
  if (source.gguf == nullptr) return list;
  absl::flat_hash_set<std::string> known = {"general.alignment"};
  for (const auto& entry : header) known.insert(entry.first);
  for (const auto& [key, value] : source.gguf->metadata()) {
    if (key.starts_with("general.") && !known.contains(key)) list.emplace_back(key, value);
  }
  std::sort(list.begin(), list.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  return list;
}

absl::Status WriteGguf(const ConvertOptions& options, const Conversion& conversion,
                       Progress& progress) {
  ESSOR_ASSIGN_OR_RETURN(model::GgufMetadataList metadata,
                         GgufHeader(conversion.spec, ModelName(conversion.source), options.to));
  ESSOR_ASSIGN_OR_RETURN(model::GgufMetadataList tokenizer, TokenizerMetadata(conversion.source));
  if (tokenizer.empty()) progress.Say("the source has no tokenizer, so the output has none");
  model::GgufMetadataList general = OtherGeneralKeys(conversion.source, metadata);
  std::move(general.begin(), general.end(), std::back_inserter(metadata));
  std::move(tokenizer.begin(), tokenizer.end(), std::back_inserter(metadata));
  ESSOR_ASSIGN_OR_RETURN(
      const std::unique_ptr<model::CheckpointWriter> writer,
      model::CreateGgufWriter(options.output, metadata, conversion.declarations));
  return WriteWeights(conversion.tensors, *writer, progress);
}

bool IsWeightFile(const fs::path& path) {
  const std::string name = path.filename();
  return name.starts_with("model") &&
         (name.ends_with(".safetensors") || name == "model.safetensors.index.json");
}

// Moves the finished files into a directory that exists, in place of an older model.
absl::Status ReplaceFiles(const fs::path& from, const fs::path& to) {
  std::error_code error;
  std::vector<fs::path> old_weights;
  for (const auto& entry : fs::directory_iterator(to, error)) {
    if (IsWeightFile(entry.path())) old_weights.push_back(entry.path());
  }
  if (error) return FileError(error, "list", to);
  for (const fs::path& path : old_weights) {
    if (!fs::remove(path, error)) return FileError(error, "remove", path);
  }
  for (const auto& entry : fs::directory_iterator(from, error)) {
    std::error_code failure;
    fs::rename(entry.path(), to / entry.path().filename(), failure);
    if (failure) return FileError(failure, "replace", to / entry.path().filename());
  }
  if (error) return FileError(error, "list", from);
  fs::remove_all(from, error);
  return absl::OkStatus();
}

// A directory that becomes the output, or vanishes.
class PartialDirectory {
 public:
  explicit PartialDirectory(const std::string& output) : output_(output) {
    if (!output_.has_filename()) output_ = output_.parent_path();  // "dir/"
    partial_ = output_.string() + ".partial";
  }
  ~PartialDirectory() {
    std::error_code ignored;
    fs::remove_all(partial_, ignored);
  }
  PartialDirectory(const PartialDirectory&) = delete;
  PartialDirectory& operator=(const PartialDirectory&) = delete;

  absl::Status Create() const {
    std::error_code error;
    fs::remove_all(partial_, error);  // of an attempt that was cut off
    if (error) return FileError(error, "remove", partial_);
    if (!fs::create_directory(partial_, error)) return FileError(error, "create", partial_);
    return absl::OkStatus();
  }
  absl::Status Publish() const {
    std::error_code error;
    if (fs::exists(output_, error) && !fs::is_empty(output_, error)) {
      return ReplaceFiles(partial_, output_);
    }
    fs::rename(partial_, output_, error);  // replaces an empty directory, too
    return error ? FileError(error, "create", output_) : absl::OkStatus();
  }
  std::string path() const { return partial_; }

 private:
  fs::path output_;
  fs::path partial_;
};

absl::Status WriteDirectory(const ConvertOptions& options, const Conversion& conversion,
                            Progress& progress) {
  const PartialDirectory directory(options.output);
  ESSOR_RETURN_IF_ERROR(directory.Create());
  const fs::path path(directory.path());
  ESSOR_RETURN_IF_ERROR(model::WriteTextFile(path / "config.json", conversion.config));
  ESSOR_RETURN_IF_ERROR(WriteTextFiles(conversion.source, path));
  {
    ESSOR_ASSIGN_OR_RETURN(
        const std::unique_ptr<model::CheckpointWriter> writer,
        model::CreateSafetensorsWriter(path, conversion.declarations, options.shard_bytes));
    ESSOR_RETURN_IF_ERROR(WriteWeights(conversion.tensors, *writer, progress));
  }
  return directory.Publish();
}

absl::Status CreateParent(const std::string& output) {
  fs::path path = fs::path(output).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  if (!path.has_parent_path()) return absl::OkStatus();
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  return error ? FileError(error, "create", path.parent_path()) : absl::OkStatus();
}

}  // namespace

absl::StatusOr<ConvertType> ParseConvertType(const std::string& name) {
  for (const ConvertType type : {ConvertType::kBF16, ConvertType::kF32, ConvertType::kQ8_0}) {
    if (name == NameOf(type)) return type;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown element type ", name, " (known: bf16, f32, q8_0)"));
}

absl::StatusOr<Upcycle> ParseUpcycle(const std::string& text) {
  const std::vector<std::string> parts = absl::StrSplit(text, 'x');
  Upcycle upcycle;
  if (parts.size() == 2 && absl::SimpleAtoi(parts[0], &upcycle.num_experts) &&
      absl::SimpleAtoi(parts[1], &upcycle.top_k) && upcycle.top_k > 0 &&
      upcycle.top_k <= upcycle.num_experts) {
    return upcycle;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "\"", text, "\" is not EXPERTSxTOP_K with TOP_K from 1 to EXPERTS, such as 8x2"));
}

absl::Status ConvertModel(const ConvertOptions& options) {
  ESSOR_RETURN_IF_ERROR(CheckOptions(options));
  ESSOR_ASSIGN_OR_RETURN(const SourceModel source, SourceModel::Open(options.source));
  ESSOR_RETURN_IF_ERROR(RefuseUnusualAttention(source));
  ESSOR_RETURN_IF_ERROR(RefuseUnusualTensors(source));
  ESSOR_ASSIGN_OR_RETURN(const std::string config, OutputConfig(source, options));
  ESSOR_ASSIGN_OR_RETURN(const model::ConfigView view,
                         model::ConfigView::Parse(config, "the converted config.json"));
  ESSOR_ASSIGN_OR_RETURN(const model::ModelSpec spec, model::SpecFromConfig(view));
  const bool to_gguf = IsGgufPath(options.output);
  ESSOR_ASSIGN_OR_RETURN(
      const std::vector<OutputTensor> tensors,
      PlanWeights(source, spec,
                  {.to_gguf = to_gguf, .to = options.to, .upcycle = options.upcycle}));

  Conversion conversion = {
      .source = source, .config = config, .spec = spec, .tensors = tensors, .declarations = {}};
  uint64_t total_bytes = 0;
  for (const OutputTensor& tensor : tensors) {
    conversion.declarations.push_back(tensor.declaration);
    total_bytes += BytesOf(tensor.declaration);
  }
  Progress progress(options, total_bytes);
  progress.Say(absl::StrCat("converting ", options.source, " (", source.spec.family, ") to ",
                            options.output, " (", spec.family, ", ", NameOf(options.to), ", ",
                            tensors.size(), " tensors)"));
  ESSOR_RETURN_IF_ERROR(CreateParent(options.output));
  ESSOR_RETURN_IF_ERROR(to_gguf ? WriteGguf(options, conversion, progress)
                                : WriteDirectory(options, conversion, progress));
  progress.Say(absl::StrCat("wrote ", options.output));
  return absl::OkStatus();
}

}  // namespace essor::client
