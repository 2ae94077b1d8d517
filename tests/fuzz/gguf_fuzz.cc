// Any bytes as a GGUF file: a clean error, or tensors that lie inside the file and decode, and a
// configuration that translates or is refused.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "common/check.h"
#include "model/checkpoint/gguf_format.h"
#include "model/checkpoint/gguf_names.h"
#include "model/checkpoint/tensor_table.h"

namespace essor::model {
namespace {

// A parsed input in place of a mapped file.
class ParsedGguf final : public GgufFile {
 public:
  explicit ParsedGguf(GgufContents contents)
      : metadata_(std::move(contents.metadata)), table_("gguf", std::move(contents.tensors), {}) {}
  absl::StatusOr<TensorView> Find(const std::string& name) const override {
    return table_.Find(name);
  }
  bool Contains(const std::string& name) const override { return table_.Contains(name); }
  std::vector<std::string> TensorNames() const override { return table_.Names(); }
  std::string Fingerprint() const override { return table_.Fingerprint(); }
  const absl::flat_hash_map<std::string, GgufValue>& metadata() const override { return metadata_; }
  const std::string& path() const override { return path_; }

 private:
  absl::flat_hash_map<std::string, GgufValue> metadata_;
  TensorTable table_;
  std::string path_ = "fuzz";
};

void CheckTensor(const TensorEntry& entry, std::span<const std::byte> bytes) {
  const TensorView& view = entry.view;
  ESSOR_CHECK(view.data.empty() ||
              (view.data.data() >= bytes.data() &&
               view.data.data() + view.data.size() <= bytes.data() + bytes.size()));
  if (!entry.supported) return;
  const DTypeInfo& info = InfoOf(view.dtype);
  std::vector<float> values(view.data.size() / info.block_bytes * info.block_elements);
  const absl::Status status = DecodeToFloat(view, 0, values);
  ESSOR_CHECK(status.ok() || absl::IsInvalidArgument(status));
}

void CheckFile(std::span<const std::byte> bytes) {
  absl::StatusOr<GgufContents> contents = ParseGguf(bytes, "fuzz");
  if (!contents.ok()) {
    ESSOR_CHECK(absl::IsInvalidArgument(contents.status()));
    return;
  }
  for (const TensorEntry& entry : contents->tensors) CheckTensor(entry, bytes);
  const ParsedGguf file(*std::move(contents));
  ESSOR_CHECK(file.Fingerprint().size() == 32);
  const absl::Status config = GgufConfigToHf(file).status();
  ESSOR_CHECK(config.ok() || absl::IsInvalidArgument(config));
}

}  // namespace
}  // namespace essor::model

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  essor::model::CheckFile(std::as_bytes(std::span(data, size)));
  return 0;
}
