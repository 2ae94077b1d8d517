// A safetensors file of float32 tensors logits.0, logits.1, ..., each [tokens, vocabulary], written
// as the rows come in. Format: https://huggingface.co/docs/safetensors (8 bytes of header length,
// JSON header, data).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace essor::cli {

// Thread-compatible. Writes "<path>.partial", which Finish() renames to `path`; destruction without
// it removes the file. Errors of the file system name the path.
class LogitsFile {
 public:
  // `num_tokens[i]` rows for tensor i.
  static absl::StatusOr<std::unique_ptr<LogitsFile>> Create(const std::string& path,
                                                            const std::vector<uint64_t>& num_tokens,
                                                            uint64_t vocab_size);
  ~LogitsFile();
  LogitsFile(const LogitsFile&) = delete;
  LogitsFile& operator=(const LogitsFile&) = delete;

  // `rows` are whole rows of float32, little-endian, from `first_row` of tensor `index` on. Each
  // row is written once, in any order. Internal when they do not fit the tensor.
  absl::Status Write(size_t index, uint64_t first_row, std::string_view rows);
  // Internal naming the tensor when rows are missing.
  absl::Status Finish();

 private:
  LogitsFile(std::string path, int descriptor, std::vector<uint64_t> num_tokens,
             uint64_t row_bytes);
  absl::Status WriteAt(uint64_t offset, std::string_view bytes);

  const std::string path_;
  const std::string partial_;
  const int descriptor_;
  const std::vector<uint64_t> num_tokens_;
  const uint64_t row_bytes_;
  std::vector<uint64_t> offsets_;       // of each tensor in the file
  std::vector<uint64_t> rows_written_;  // of each tensor
  bool published_ = false;
};

}  // namespace essor::cli
