#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "model/checkpoint/checkpoint_writer.h"
#include "model/checkpoint/gguf_format.h"
#include "model/checkpoint/output_file.h"
#include "model/checkpoint/tensor_sequence.h"

namespace essor::model {
namespace {

constexpr uint64_t kAlignment = kGgufDefaultAlignment;

template <typename T>
void Put(std::string& out, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out.append(bytes, sizeof(T));
}

void PutString(std::string& out, const std::string& text) {
  Put<uint64_t>(out, text.size());
  out.append(text);
}

// One value of a type already written.
struct ValuePutter {
  std::string& out;
  bool wide;  // 64-bit integers

  void operator()(bool value) const { Put<uint8_t>(out, value ? 1 : 0); }
  void operator()(int64_t value) const {
    wide ? Put(out, value) : Put(out, static_cast<int32_t>(value));
  }
  void operator()(uint64_t value) const {
    wide ? Put(out, value) : Put(out, static_cast<uint32_t>(value));
  }
  void operator()(double value) const { Put(out, static_cast<float>(value)); }
  void operator()(const std::string& value) const { PutString(out, value); }
};

bool NeedsWide(bool) { return false; }
bool NeedsWide(double) { return false; }
bool NeedsWide(const std::string&) { return false; }
bool NeedsWide(int64_t value) {
  return value < std::numeric_limits<int32_t>::min() || value > std::numeric_limits<int32_t>::max();
}
bool NeedsWide(uint64_t value) { return value > std::numeric_limits<uint32_t>::max(); }

GgufValueType TypeOf(bool, bool) { return GgufValueType::kBool; }
GgufValueType TypeOf(double, bool) { return GgufValueType::kFloat32; }
GgufValueType TypeOf(const std::string&, bool) { return GgufValueType::kString; }
GgufValueType TypeOf(int64_t, bool wide) {
  return wide ? GgufValueType::kInt64 : GgufValueType::kInt32;
}
GgufValueType TypeOf(uint64_t, bool wide) {
  return wide ? GgufValueType::kUint64 : GgufValueType::kUint32;
}

template <typename T>
void PutValue(std::string& out, const T& value) {
  const bool wide = NeedsWide(value);
  Put(out, static_cast<uint32_t>(TypeOf(value, wide)));
  ValuePutter{out, wide}(value);
}

template <typename T>
void PutValue(std::string& out, const std::vector<T>& values) {
  bool wide = false;
  for (const T& value : values) wide |= NeedsWide(value);
  Put(out, static_cast<uint32_t>(GgufValueType::kArray));
  Put(out, static_cast<uint32_t>(TypeOf(T{}, wide)));
  Put<uint64_t>(out, values.size());
  for (const T& value : values) ValuePutter{out, wide}(value);
}

uint64_t Padding(uint64_t position) { return (kAlignment - position % kAlignment) % kAlignment; }

absl::StatusOr<std::string> EncodeHeader(const GgufMetadataList& metadata,
                                         const TensorSequence& sequence) {
  std::string out;
  Put(out, kGgufMagic);
  Put(out, kGgufVersion);
  Put<uint64_t>(out, sequence.tensors().size());
  Put<uint64_t>(out, metadata.size());
  absl::flat_hash_set<std::string> keys;
  for (const auto& [key, value] : metadata) {
    if (!keys.insert(key).second) {
      return absl::InvalidArgumentError(absl::StrCat("metadata key ", key, " occurs twice"));
    }
    PutString(out, key);
    std::visit([&](const auto& typed) { PutValue(out, typed); }, value);
  }
  uint64_t offset = 0;
  for (size_t i = 0; i < sequence.tensors().size(); ++i) {
    const TensorDeclaration& tensor = sequence.tensors()[i];
    if (tensor.shape.empty() || tensor.shape.size() > kGgufDimensionsMax ||
        sequence.bytes_of(i) == 0) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", tensor.name, ": GGUF needs 1 to ",
                                                     kGgufDimensionsMax,
                                                     " dimensions, none of them 0"));
    }
    PutString(out, tensor.name);
    Put(out, static_cast<uint32_t>(tensor.shape.size()));
    for (auto extent = tensor.shape.rbegin(); extent != tensor.shape.rend(); ++extent) {
      Put(out, *extent);
    }
    Put(out, GgufTypeOf(tensor.dtype).id);
    Put(out, offset);
    offset += sequence.bytes_of(i);
    offset += Padding(offset);
  }
  out.append(Padding(out.size()), '\0');
  return out;
}

class GgufWriter final : public CheckpointWriter {
 public:
  GgufWriter(std::unique_ptr<OutputFile> file, TensorSequence sequence)
      : file_(std::move(file)), sequence_(std::move(sequence)) {}

  absl::Status Append(std::span<const std::byte> bytes) override {
    while (!bytes.empty()) {
      const size_t current = sequence_.current();
      if (current == sequence_.tensors().size()) {
        return absl::InvalidArgumentError(
            absl::StrCat(file_->path(), ": more bytes than were declared"));
      }
      const size_t count = std::min<uint64_t>(bytes.size(), sequence_.remaining_in_current());
      ESSOR_RETURN_IF_ERROR(file_->Append(bytes.first(count)));
      bytes = bytes.subspan(count);
      sequence_.Advance(count);
      if (sequence_.current() != current) ESSOR_RETURN_IF_ERROR(Align());
    }
    return absl::OkStatus();
  }

  absl::Status Finish() override {
    ESSOR_RETURN_IF_ERROR(sequence_.CheckComplete());
    ESSOR_RETURN_IF_ERROR(file_->Close());
    return file_->Publish();
  }

 private:
  // After the last tensor too: ggml's reader expects the data section to be padded.
  absl::Status Align() {
    static constexpr std::array<std::byte, kAlignment> kZeros = {};
    return file_->Append(std::span(kZeros).first(Padding(file_->size())));
  }

  std::unique_ptr<OutputFile> file_;
  TensorSequence sequence_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CheckpointWriter>> CreateGgufWriter(
    const std::string& path, const GgufMetadataList& metadata,
    std::vector<TensorDeclaration> tensors) {
  ESSOR_ASSIGN_OR_RETURN(TensorSequence sequence, TensorSequence::Create(std::move(tensors)));
  ESSOR_ASSIGN_OR_RETURN(const std::string header, EncodeHeader(metadata, sequence));
  ESSOR_ASSIGN_OR_RETURN(std::unique_ptr<OutputFile> file, OutputFile::Create(path));
  ESSOR_RETURN_IF_ERROR(file->Append(header));
  return std::make_unique<GgufWriter>(std::move(file), std::move(sequence));
}

}  // namespace essor::model
