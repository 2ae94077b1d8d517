// Writing checkpoints tensor by tensor, in either file format.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/dtype.h"
#include "model/checkpoint/gguf.h"

namespace essor::model {

// A tensor to come. Both formats put all names and shapes before the first byte of data.
struct TensorDeclaration {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<uint64_t> shape;  // outermost first
};

// Takes the bytes of the declared tensors, one after the other in the order of declaration, cut in
// any way. Memory: a small buffer. Nothing appears under its final name before Finish(); files are
// removed when the writer is destroyed without it. Thread-compatible.
// Errors of the file system name the path (ResourceExhausted: disk full).
class CheckpointWriter {
 public:
  virtual ~CheckpointWriter() = default;
  // InvalidArgument for more bytes than were declared.
  virtual absl::Status Append(std::span<const std::byte> bytes) = 0;
  // FailedPrecondition naming the tensor when bytes are missing. Call once, last.
  virtual absl::Status Finish() = 0;
};

// Writes model.safetensors, or model-00001-of-0000N.safetensors and an index when the data takes
// more than `shard_bytes` (a tensor is never cut). `directory` must exist. InvalidArgument for
// duplicate names and types that safetensors has no word for.
absl::StatusOr<std::unique_ptr<CheckpointWriter>> CreateSafetensorsWriter(
    const std::string& directory, std::vector<TensorDeclaration> tensors, uint64_t shard_bytes);

// Keys in the order given, each once. Whole numbers are written with 32 bits where they fit and
// real ones as float32, which is what the specification's keys have and readers insist on.
using GgufMetadataList = std::vector<std::pair<std::string, GgufValue>>;

// Writes one GGUF file, version 3, alignment 32. InvalidArgument for duplicate names, more than 4
// dimensions, none, one of size 0, or rows that cut quantised blocks.
absl::StatusOr<std::unique_ptr<CheckpointWriter>> CreateGgufWriter(
    const std::string& path, const GgufMetadataList& metadata,
    std::vector<TensorDeclaration> tensors);

}  // namespace essor::model
