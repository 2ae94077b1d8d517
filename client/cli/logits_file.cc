#include "client/cli/logits_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/json_output.h"
#include "common/status_macros.h"

namespace essor::cli {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr uint64_t kAlignment = 8;  // of the data, as the format's own writer pads the header

absl::Status FileError(const std::string& what, const std::string& path) {
  return absl::ErrnoToStatus(errno, absl::StrFormat("cannot %s %s", what, path));
}

std::string Header(const std::vector<uint64_t>& num_tokens, uint64_t vocab_size) {
  JsonOutput json;
  json.StartObject();
  uint64_t begin = 0;
  for (size_t i = 0; i < num_tokens.size(); ++i) {
    const uint64_t end = begin + num_tokens[i] * vocab_size * sizeof(float);
    json.Key(absl::StrCat("logits.", i));
    json.StartObject();
    json.Field("dtype", std::string_view("F32"));
    json.Key("shape");
    json.StartArray();
    json.Value(num_tokens[i]);
    json.Value(vocab_size);
    json.EndArray();
    json.Key("data_offsets");
    json.StartArray();
    json.Value(begin);
    json.Value(end);
    json.EndArray();
    json.EndObject();
    begin = end;
  }
  json.EndObject();
  std::string text = json.text();
  text.resize((text.size() + kAlignment - 1) / kAlignment * kAlignment, ' ');
  const uint64_t size = text.size();
  std::string length(sizeof(size), '\0');
  std::memcpy(length.data(), &size, sizeof(size));
  return length + text;
}

}  // namespace

absl::StatusOr<std::unique_ptr<LogitsFile>> LogitsFile::Create(
    const std::string& path, const std::vector<uint64_t>& num_tokens, uint64_t vocab_size) {
  const std::string partial = path + ".partial";
  const int descriptor = open(partial.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor < 0) return FileError("create", partial);
  std::unique_ptr<LogitsFile> file(
      new LogitsFile(path, descriptor, num_tokens, vocab_size * sizeof(float)));
  const std::string header = Header(num_tokens, vocab_size);
  uint64_t offset = header.size();
  for (const uint64_t tokens : num_tokens) {
    file->offsets_.push_back(offset);
    offset += tokens * file->row_bytes_;
  }
  ESSOR_RETURN_IF_ERROR(file->WriteAt(0, header));
  if (ftruncate(descriptor, static_cast<off_t>(offset)) != 0) return FileError("extend", partial);
  return file;
}

LogitsFile::LogitsFile(std::string path, int descriptor, std::vector<uint64_t> num_tokens,
                       uint64_t row_bytes)
    : path_(std::move(path)),
      partial_(path_ + ".partial"),
      descriptor_(descriptor),
      num_tokens_(std::move(num_tokens)),
      row_bytes_(row_bytes),
      rows_written_(num_tokens_.size(), 0) {}

LogitsFile::~LogitsFile() {
  close(descriptor_);
  if (!published_) unlink(partial_.c_str());
}

absl::Status LogitsFile::Write(size_t index, uint64_t first_row, std::string_view rows) {
  const uint64_t count = rows.size() / row_bytes_;
  if (index >= num_tokens_.size() || rows.size() % row_bytes_ != 0 ||
      first_row > num_tokens_[index] || count > num_tokens_[index] - first_row) {
    return absl::InternalError(absl::StrFormat(
        "%d bytes of logits at row %d do not fit sequence %d", rows.size(), first_row, index));
  }
  rows_written_[index] += count;
  return WriteAt(offsets_[index] + first_row * row_bytes_, rows);
}

absl::Status LogitsFile::WriteAt(uint64_t offset, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count =
        pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return FileError("write", partial_);
    offset += static_cast<uint64_t>(count);
    bytes.remove_prefix(static_cast<size_t>(count));
  }
  return absl::OkStatus();
}

absl::Status LogitsFile::Finish() {
  for (size_t i = 0; i < num_tokens_.size(); ++i) {
    if (rows_written_[i] == num_tokens_[i]) continue;
    return absl::InternalError(absl::StrFormat("%d of %d rows of logits came for sequence %d",
                                               rows_written_[i], num_tokens_[i], i));
  }
  // A rename must not overtake the data.
  if (fsync(descriptor_) != 0) return FileError("write", partial_);
  if (std::rename(partial_.c_str(), path_.c_str()) != 0) return FileError("create", path_);
  published_ = true;
  return absl::OkStatus();
}

}  // namespace essor::cli
