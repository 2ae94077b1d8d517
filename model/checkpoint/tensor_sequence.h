// Where a writer stands in its list of declared tensors.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/checkpoint/checkpoint_writer.h"

namespace essor::model {

// Thread-compatible.
class TensorSequence {
 public:
  // InvalidArgument for duplicate names and shapes too large.
  static absl::StatusOr<TensorSequence> Create(std::vector<TensorDeclaration> tensors);

  const std::vector<TensorDeclaration>& tensors() const { return tensors_; }
  uint64_t bytes_of(size_t index) const { return bytes_[index]; }
  uint64_t total_bytes() const;

  // Index of the tensor that the next byte belongs to; tensors().size() at the end. Empty tensors
  // are never current.
  size_t current() const { return current_; }
  uint64_t remaining_in_current() const { return bytes_[current_] - written_; }
  // `bytes` at most remaining_in_current().
  void Advance(uint64_t bytes);
  // FailedPrecondition naming the first incomplete tensor.
  absl::Status CheckComplete() const;

 private:
  void SkipComplete();

  std::vector<TensorDeclaration> tensors_;
  std::vector<uint64_t> bytes_;
  size_t current_ = 0;
  uint64_t written_ = 0;  // of the current tensor
};

}  // namespace essor::model
