#include "model/checkpoint/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status_macros.h"

namespace essor::model {
namespace {

constexpr size_t kBufferBytes = 1 << 20;

absl::Status SystemError(const char* what, const std::string& path) {
  return absl::ErrnoToStatus(errno, absl::StrCat("cannot ", what, " ", path));
}

}  // namespace

OutputFile::OutputFile(std::string path, int descriptor)
    : path_(std::move(path)), partial_(path_ + ".partial"), descriptor_(descriptor) {
  buffer_.reserve(kBufferBytes);
}

absl::StatusOr<std::unique_ptr<OutputFile>> OutputFile::Create(const std::string& path) {
  const std::string partial = path + ".partial";
  const int descriptor = open(partial.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor < 0) return SystemError("create", partial);
  return std::unique_ptr<OutputFile>(new OutputFile(path, descriptor));
}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) close(descriptor_);
  if (!published_) unlink(partial_.c_str());
}

absl::Status OutputFile::WriteAll(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(descriptor_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return SystemError("write", partial_);
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::Status OutputFile::Flush() {
  ESSOR_RETURN_IF_ERROR(WriteAll(buffer_));
  buffer_.clear();
  return absl::OkStatus();
}

absl::Status OutputFile::Append(std::span<const std::byte> bytes) {
  ESSOR_CHECK(descriptor_ >= 0);
  size_ += bytes.size();
  if (buffer_.size() + bytes.size() > kBufferBytes) ESSOR_RETURN_IF_ERROR(Flush());
  if (bytes.size() >= kBufferBytes) return WriteAll(bytes);
  buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  return absl::OkStatus();
}

absl::Status OutputFile::Append(std::string_view text) {
  return Append(std::as_bytes(std::span(text)));
}

absl::Status OutputFile::Close() {
  ESSOR_CHECK(descriptor_ >= 0);
  ESSOR_RETURN_IF_ERROR(Flush());
  std::vector<std::byte>().swap(buffer_);
  if (fsync(descriptor_) != 0) return SystemError("write", partial_);
  const int result = close(std::exchange(descriptor_, -1));
  if (result != 0) return SystemError("close", partial_);
  return absl::OkStatus();
}

absl::Status OutputFile::Publish() {
  ESSOR_CHECK(descriptor_ < 0 && !published_);
  if (rename(partial_.c_str(), path_.c_str()) != 0) return SystemError("rename to", path_);
  published_ = true;
  return absl::OkStatus();
}

absl::Status WriteTextFile(const std::string& path, std::string_view text) {
  ESSOR_ASSIGN_OR_RETURN(const std::unique_ptr<OutputFile> file, OutputFile::Create(path));
  ESSOR_RETURN_IF_ERROR(file->Append(text));
  ESSOR_RETURN_IF_ERROR(file->Close());
  return file->Publish();
}

}  // namespace essor::model
