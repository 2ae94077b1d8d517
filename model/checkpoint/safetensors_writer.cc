#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "model/checkpoint/checkpoint_writer.h"
#include "model/checkpoint/output_file.h"
#include "model/checkpoint/safetensors_header.h"
#include "model/checkpoint/tensor_sequence.h"
#include "rapidjson/prettywriter.h"
#include "rapidjson/stringbuffer.h"
#include "rapidjson/writer.h"

namespace essor::model {
namespace {

// Tensors [first, last) of the sequence.
struct Shard {
  size_t first = 0;
  size_t last = 0;
  std::string file_name;
};

// Greedy, in order: the same declarations always give the same shards.
std::vector<Shard> CutShards(const TensorSequence& sequence, uint64_t shard_bytes) {
  std::vector<Shard> shards = {{}};
  uint64_t bytes = 0;
  for (size_t i = 0; i < sequence.tensors().size(); ++i) {
    if (bytes > 0 && bytes + sequence.bytes_of(i) > shard_bytes) {
      shards.push_back({.first = i, .last = i, .file_name = ""});
      bytes = 0;
    }
    bytes += sequence.bytes_of(i);
    shards.back().last = i + 1;
  }
  for (size_t i = 0; i < shards.size(); ++i) {
    shards[i].file_name = shards.size() == 1 ? "model.safetensors"
                                             : absl::StrFormat("model-%05d-of-%05d.safetensors",
                                                               i + 1, shards.size());
  }
  return shards;
}

template <typename JsonWriter>
void PutKey(JsonWriter& json, const std::string& key) {
  json.Key(key.data(), static_cast<rapidjson::SizeType>(key.size()));
}

std::string EncodeHeader(const TensorSequence& sequence, const Shard& shard) {
  rapidjson::StringBuffer buffer;
  rapidjson::Writer<rapidjson::StringBuffer> json(buffer);
  json.StartObject();
  json.Key("__metadata__"), json.StartObject();
  json.Key("format"), json.String("pt");  // transformers refuses files without it
  json.EndObject();
  uint64_t offset = 0;
  for (size_t i = shard.first; i < shard.last; ++i) {
    const TensorDeclaration& tensor = sequence.tensors()[i];
    PutKey(json, tensor.name), json.StartObject();
    json.Key("dtype"), json.String(SafetensorsTypeName(tensor.dtype).c_str());
    json.Key("shape"), json.StartArray();
    for (const uint64_t extent : tensor.shape) json.Uint64(extent);
    json.EndArray();
    json.Key("data_offsets"), json.StartArray();
    json.Uint64(offset), json.Uint64(offset + sequence.bytes_of(i));
    json.EndArray(), json.EndObject();
    offset += sequence.bytes_of(i);
  }
  json.EndObject();
  std::string text(buffer.GetString(), buffer.GetSize());
  text.append((8 - text.size() % 8) % 8, ' ');  // keeps the data aligned
  std::string header;
  for (int shift = 0; shift < 64; shift += 8) {
    header.push_back(static_cast<char>(text.size() >> shift & 0xff));
  }
  return header + text;
}

std::string EncodeIndex(const TensorSequence& sequence, const std::vector<Shard>& shards) {
  rapidjson::StringBuffer buffer;
  rapidjson::PrettyWriter<rapidjson::StringBuffer> json(buffer);
  json.SetIndent(' ', 2);
  json.StartObject();
  json.Key("metadata"), json.StartObject();
  json.Key("total_size"), json.Uint64(sequence.total_bytes());
  json.EndObject();
  json.Key("weight_map"), json.StartObject();
  for (const Shard& shard : shards) {
    for (size_t i = shard.first; i < shard.last; ++i) {
      PutKey(json, sequence.tensors()[i].name), json.String(shard.file_name.c_str());
    }
  }
  json.EndObject(), json.EndObject();
  return absl::StrCat(buffer.GetString(), "\n");
}

class SafetensorsWriter final : public CheckpointWriter {
 public:
  SafetensorsWriter(std::string directory, TensorSequence sequence, std::vector<Shard> shards)
      : directory_(std::move(directory)),
        sequence_(std::move(sequence)),
        shards_(std::move(shards)) {}

  // Opens the first file, so that an unwritable directory is found at once.
  absl::Status Begin() { return OpenShard(); }

  absl::Status Append(std::span<const std::byte> bytes) override {
    while (!bytes.empty()) {
      const size_t current = sequence_.current();
      if (current == sequence_.tensors().size()) {
        return absl::InvalidArgumentError(
            absl::StrCat(directory_, ": more bytes than were declared"));
      }
      while (current >= shards_[files_.size() - 1].last) ESSOR_RETURN_IF_ERROR(NextShard());
      const size_t count = std::min<uint64_t>(bytes.size(), sequence_.remaining_in_current());
      ESSOR_RETURN_IF_ERROR(files_.back()->Append(bytes.first(count)));
      bytes = bytes.subspan(count);
      sequence_.Advance(count);
    }
    return absl::OkStatus();
  }

  absl::Status Finish() override {
    ESSOR_RETURN_IF_ERROR(sequence_.CheckComplete());
    while (files_.size() < shards_.size()) ESSOR_RETURN_IF_ERROR(NextShard());
    ESSOR_RETURN_IF_ERROR(files_.back()->Close());
    for (const std::unique_ptr<OutputFile>& file : files_) ESSOR_RETURN_IF_ERROR(file->Publish());
    if (shards_.size() == 1) return absl::OkStatus();
    return WriteTextFile(std::filesystem::path(directory_) / "model.safetensors.index.json",
                         EncodeIndex(sequence_, shards_));
  }

 private:
  absl::Status OpenShard() {
    const Shard& shard = shards_[files_.size()];
    ESSOR_ASSIGN_OR_RETURN(std::unique_ptr<OutputFile> file,
                           OutputFile::Create(std::filesystem::path(directory_) / shard.file_name));
    ESSOR_RETURN_IF_ERROR(file->Append(EncodeHeader(sequence_, shard)));
    files_.push_back(std::move(file));
    return absl::OkStatus();
  }

  absl::Status NextShard() {
    ESSOR_RETURN_IF_ERROR(files_.back()->Close());
    return OpenShard();
  }

  const std::string directory_;
  TensorSequence sequence_;
  const std::vector<Shard> shards_;
  std::vector<std::unique_ptr<OutputFile>> files_;  // the last one is open
};

}  // namespace

absl::StatusOr<std::unique_ptr<CheckpointWriter>> CreateSafetensorsWriter(
    const std::string& directory, std::vector<TensorDeclaration> tensors, uint64_t shard_bytes) {
  for (const TensorDeclaration& tensor : tensors) {
    if (SafetensorsTypeName(tensor.dtype).empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor ", tensor.name, ": safetensors cannot store ", InfoOf(tensor.dtype).name));
    }
  }
  ESSOR_ASSIGN_OR_RETURN(TensorSequence sequence, TensorSequence::Create(std::move(tensors)));
  std::vector<Shard> shards = CutShards(sequence, shard_bytes);
  auto writer =
      std::make_unique<SafetensorsWriter>(directory, std::move(sequence), std::move(shards));
  ESSOR_RETURN_IF_ERROR(writer->Begin());
  return writer;
}

}  // namespace essor::model
