#include <filesystem>
#include <map>
#include <memory>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/mapped_file.h"
#include "model/checkpoint/safetensors_header.h"
#include "model/checkpoint/tensor_table.h"
#include "simdjson.h"

namespace essor::model {
namespace {

constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndexFile[] = "model.safetensors.index.json";

class SafetensorsCheckpoint final : public Checkpoint {
 public:
  SafetensorsCheckpoint(std::vector<std::unique_ptr<MappedFile>> files, TensorTable table)
      : files_(std::move(files)), table_(std::move(table)) {}

  absl::StatusOr<TensorView> Find(const std::string& name) const override {
    return table_.Find(name);
  }
  bool Contains(const std::string& name) const override { return table_.Contains(name); }
  std::vector<std::string> TensorNames() const override { return table_.Names(); }
  std::string Fingerprint() const override { return table_.Fingerprint(); }

 private:
  std::vector<std::unique_ptr<MappedFile>> files_;  // what the table's views point into
  TensorTable table_;
};

// file name -> names of the tensors that the index places there.
using WeightMap = std::map<std::string, std::vector<std::string>>;

// A shard must be a plain name: an index from elsewhere may not reach outside its directory.
bool IsPlainFileName(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

absl::StatusOr<WeightMap> ReadIndex(const std::string& path) {
  ESSOR_ASSIGN_OR_RETURN(const std::unique_ptr<MappedFile> file, MappedFile::Open(path));
  if (file->bytes().size() > kSafetensorsHeaderBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": is over the limit of ", kSafetensorsHeaderBytesMax, " bytes"));
  }
  const simdjson::padded_string json(reinterpret_cast<const char*>(file->bytes().data()),
                                     file->bytes().size());
  simdjson::dom::parser parser;
  simdjson::dom::object entries;
  if (const auto error = parser.parse(json)["weight_map"].get_object().get(entries);
      error != simdjson::SUCCESS) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": has no object weight_map: ", simdjson::error_message(error)));
  }
  WeightMap shards;
  absl::flat_hash_map<std::string, std::string> seen;
  for (const auto field : entries) {
    const std::string tensor(field.key);
    std::string_view shard;
    if (field.value.get_string().get(shard) != simdjson::SUCCESS ||
        !IsPlainFileName(std::string(shard))) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": weight_map of tensor ", tensor, " must be a file name"));
    }
    if (!seen.emplace(tensor, shard).second) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": tensor ", tensor, " occurs twice"));
    }
    shards[std::string(shard)].push_back(tensor);
  }
  if (shards.empty()) return absl::InvalidArgumentError(absl::StrCat(path, ": names no tensor"));
  return shards;
}

// Moves the tensors that the index places in this shard to `entries`; others are left out, as the
// index decides where a tensor is read from.
absl::Status TakeListed(const std::string& index, const std::string& shard,
                        const std::vector<std::string>& listed, std::vector<TensorEntry> found,
                        std::vector<TensorEntry>& entries) {
  absl::flat_hash_map<std::string, size_t> position;
  for (size_t i = 0; i < found.size(); ++i) position.emplace(found[i].view.name, i);
  for (const std::string& name : listed) {
    const auto it = position.find(name);
    if (it == position.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat(index, ": places tensor ", name, " in ", shard, ", which has none"));
    }
    entries.push_back(std::move(found[it->second]));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenSharded(const std::filesystem::path& directory) {
  const std::string index = directory / kIndexFile;
  ESSOR_ASSIGN_OR_RETURN(const WeightMap shards, ReadIndex(index));
  std::vector<std::unique_ptr<MappedFile>> files;
  std::vector<uint64_t> sizes;
  std::vector<TensorEntry> entries;
  for (const auto& [shard, listed] : shards) {
    const std::string path = directory / shard;
    absl::StatusOr<std::unique_ptr<MappedFile>> file = MappedFile::Open(path);
    if (!file.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(index, ": names ", shard, " for tensor ",
                                                     listed.front(), ": ",
                                                     std::string(file.status().message())));
    }
    ESSOR_ASSIGN_OR_RETURN(std::vector<TensorEntry> found,
                           ParseSafetensors((*file)->bytes(), path));
    ESSOR_RETURN_IF_ERROR(TakeListed(index, shard, listed, std::move(found), entries));
    sizes.push_back((*file)->bytes().size());
    files.push_back(*std::move(file));
  }
  return std::make_unique<SafetensorsCheckpoint>(
      std::move(files), TensorTable("safetensors", std::move(entries), std::move(sizes)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenSafetensors(const std::string& path) {
  std::filesystem::path single(path);
  std::error_code error;
  if (!std::filesystem::is_regular_file(single, error)) {
    const std::filesystem::path root(path);
    single = root / kSingleFile;
    if (!std::filesystem::exists(single, error)) {
      if (std::filesystem::exists(root / kIndexFile, error)) return OpenSharded(root);
      return absl::NotFoundError(
          absl::StrCat(path, ": has neither ", kSingleFile, " nor ", kIndexFile));
    }
  }
  ESSOR_ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> file, MappedFile::Open(single));
  ESSOR_ASSIGN_OR_RETURN(std::vector<TensorEntry> entries,
                         ParseSafetensors(file->bytes(), file->path()));
  std::vector<uint64_t> sizes = {file->bytes().size()};
  std::vector<std::unique_ptr<MappedFile>> files;
  files.push_back(std::move(file));
  return std::make_unique<SafetensorsCheckpoint>(
      std::move(files), TensorTable("safetensors", std::move(entries), std::move(sizes)));
}

}  // namespace essor::model
