#include "model/checkpoint/gguf.h"

#include <utility>

#include "common/status_macros.h"
#include "model/checkpoint/gguf_format.h"
#include "model/checkpoint/mapped_file.h"
#include "model/checkpoint/tensor_table.h"

namespace essor::model {
namespace {

class MappedGguf final : public GgufFile {
 public:
  MappedGguf(std::unique_ptr<MappedFile> file, GgufContents contents)
      : file_(std::move(file)),
        metadata_(std::move(contents.metadata)),
        table_("gguf", std::move(contents.tensors), {file_->bytes().size()}) {}

  absl::StatusOr<TensorView> Find(const std::string& name) const override {
    return table_.Find(name);
  }
  bool Contains(const std::string& name) const override { return table_.Contains(name); }
  std::vector<std::string> TensorNames() const override { return table_.Names(); }
  std::string Fingerprint() const override { return table_.Fingerprint(); }
  const absl::flat_hash_map<std::string, GgufValue>& metadata() const override { return metadata_; }
  const std::string& path() const override { return file_->path(); }

 private:
  std::unique_ptr<MappedFile> file_;  // what the table's views point into
  absl::flat_hash_map<std::string, GgufValue> metadata_;
  TensorTable table_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<GgufFile>> GgufFile::Open(const std::string& path) {
  ESSOR_ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> file, MappedFile::Open(path));
  ESSOR_ASSIGN_OR_RETURN(GgufContents contents, ParseGguf(file->bytes(), path));
  return std::make_unique<MappedGguf>(std::move(file), std::move(contents));
}

}  // namespace essor::model
