#include "model/checkpoint/gguf.h"

#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "model/checkpoint/gguf_format.h"
#include "model/checkpoint/mapped_file.h"
#include "model/checkpoint/tensor_table.h"

namespace essor::model {
namespace {

constexpr uint64_t kSplitFilesMax = 1000;

// The files of one model, of which the first has the metadata.
struct GgufParts {
  std::vector<std::unique_ptr<MappedFile>> files;
  std::vector<uint64_t> sizes;
  GgufContents contents;
};

class MappedGguf final : public GgufFile {
 public:
  explicit MappedGguf(GgufParts parts)
      : files_(std::move(parts.files)),
        metadata_(std::move(parts.contents.metadata)),
        table_("gguf", std::move(parts.contents.tensors), std::move(parts.sizes)) {}

  absl::StatusOr<TensorView> Find(const std::string& name) const override {
    return table_.Find(name);
  }
  bool Contains(const std::string& name) const override { return table_.Contains(name); }
  std::vector<std::string> TensorNames() const override { return table_.Names(); }
  std::string Fingerprint() const override { return table_.Fingerprint(); }
  const absl::flat_hash_map<std::string, GgufValue>& metadata() const override { return metadata_; }
  const std::string& path() const override { return files_.front()->path(); }

 private:
  std::vector<std::unique_ptr<MappedFile>> files_;  // what the table's views point into
  absl::flat_hash_map<std::string, GgufValue> metadata_;
  TensorTable table_;
};

absl::Status Bad(const std::string& path, const std::string& problem) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", problem));
}

// A key that says how a model is split; `missing` where it is not.
absl::StatusOr<uint64_t> SplitKey(const GgufContents& contents, const std::string& path,
                                  const std::string& key, uint64_t missing) {
  const auto it = contents.metadata.find(key);
  if (it == contents.metadata.end()) return missing;
  if (const auto* value = std::get_if<uint64_t>(&it->second)) return *value;
  if (const auto* value = std::get_if<int64_t>(&it->second); value != nullptr && *value >= 0) {
    return static_cast<uint64_t>(*value);
  }
  return Bad(path, absl::StrCat("metadata key ", key, " must be a non-negative integer"));
}

// What the name of file `number` of `count` ends with; numbers count from 1.
std::string SplitSuffix(uint64_t number, uint64_t count) {
  return absl::StrFormat("-%05d-of-%05d.gguf", number, count);
}

absl::Status AddPart(const std::string& path, GgufParts& parts) {
  ESSOR_ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> file, MappedFile::Open(path));
  ESSOR_ASSIGN_OR_RETURN(GgufContents contents, ParseGguf(file->bytes(), path));
  parts.sizes.push_back(file->bytes().size());
  parts.files.push_back(std::move(file));
  if (parts.files.size() == 1) {
    parts.contents = std::move(contents);
    return absl::OkStatus();
  }
  ESSOR_ASSIGN_OR_RETURN(const uint64_t index, SplitKey(contents, path, "split.no", 0));
  if (index != parts.files.size() - 1) {
    return Bad(path, absl::StrCat("metadata key split.no is ", index, ", but the name says ",
                                  parts.files.size() - 1));
  }
  for (TensorEntry& tensor : contents.tensors) {
    parts.contents.tensors.push_back(std::move(tensor));
  }
  return absl::OkStatus();
}

absl::Status CheckTensors(const std::string& path, const GgufContents& contents) {
  absl::flat_hash_set<std::string> names;
  for (const TensorEntry& tensor : contents.tensors) {
    if (names.insert(tensor.view.name).second) continue;
    return Bad(tensor.view.file,
               absl::StrCat("tensor ", tensor.view.name, " is in another file, too"));
  }
  ESSOR_ASSIGN_OR_RETURN(const uint64_t count,
                         SplitKey(contents, path, "split.tensors.count", contents.tensors.size()));
  if (count == contents.tensors.size()) return absl::OkStatus();
  return Bad(path, absl::StrCat("metadata key split.tensors.count is ", count,
                                ", but the files have ", contents.tensors.size()));
}

// Adds the files that the first one belongs with.
absl::Status AddOtherParts(const std::string& path, GgufParts& parts) {
  ESSOR_ASSIGN_OR_RETURN(const uint64_t count, SplitKey(parts.contents, path, "split.count", 1));
  if (count <= 1) return absl::OkStatus();
  if (count > kSplitFilesMax) {
    return Bad(path, absl::StrCat("metadata key split.count is ", count, "; the limit is ",
                                  kSplitFilesMax));
  }
  ESSOR_ASSIGN_OR_RETURN(const uint64_t index, SplitKey(parts.contents, path, "split.no", 0));
  if (index != 0) {
    return Bad(path, absl::StrCat("is file ", index + 1, " of ", count,
                                  " of a model: name the first, *", SplitSuffix(1, count)));
  }
  const std::string suffix = SplitSuffix(1, count);
  if (!path.ends_with(suffix)) {
    return Bad(path, absl::StrCat("is the first of ", count,
                                  " files, but its name does not end with ", suffix));
  }
  const std::string stem = path.substr(0, path.size() - suffix.size());
  for (uint64_t number = 2; number <= count; ++number) {
    const std::string part = stem + SplitSuffix(number, count);
    const absl::Status status = AddPart(part, parts);
    if (absl::IsNotFound(status)) {
      return Bad(path,
                 absl::StrCat("is the first of ", count, " files, but ", part, " does not exist"));
    }
    ESSOR_RETURN_IF_ERROR(status);
  }
  return CheckTensors(path, parts.contents);
}

}  // namespace

absl::StatusOr<std::unique_ptr<GgufFile>> GgufFile::Open(const std::string& path) {
  GgufParts parts;
  ESSOR_RETURN_IF_ERROR(AddPart(path, parts));
  ESSOR_RETURN_IF_ERROR(AddOtherParts(path, parts));
  return std::make_unique<MappedGguf>(std::move(parts));
}

}  // namespace essor::model
