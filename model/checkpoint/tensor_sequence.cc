#include "model/checkpoint/tensor_sequence.h"

#include <numeric>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "model/checkpoint/tensor_table.h"

namespace essor::model {

absl::StatusOr<TensorSequence> TensorSequence::Create(std::vector<TensorDeclaration> tensors) {
  TensorSequence sequence;
  absl::flat_hash_set<std::string> names;
  uint64_t total = 0;
  for (const TensorDeclaration& tensor : tensors) {
    if (!names.insert(tensor.name).second) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", tensor.name, " occurs twice"));
    }
    const DTypeInfo& info = InfoOf(tensor.dtype);
    const std::optional<uint64_t> elements = ElementCount(tensor.shape);
    uint64_t bytes = 0;
    if (!elements ||
        __builtin_mul_overflow(*elements / info.block_elements, uint64_t{info.block_bytes},
                               &bytes) ||
        __builtin_add_overflow(total, bytes, &total)) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", tensor.name, ": its shape is too large"));
    }
    const uint64_t row = tensor.shape.empty() ? 1 : tensor.shape.back();
    if (row % info.block_elements != 0) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", tensor.name, ": rows of ", row,
                                                     " elements do not divide into ", info.name,
                                                     " blocks of ", info.block_elements));
    }
    sequence.bytes_.push_back(bytes);
  }
  sequence.tensors_ = std::move(tensors);
  sequence.SkipComplete();
  return sequence;
}

uint64_t TensorSequence::total_bytes() const {
  return std::accumulate(bytes_.begin(), bytes_.end(), uint64_t{0});
}

void TensorSequence::Advance(uint64_t bytes) {
  ESSOR_CHECK(current_ < tensors_.size() && bytes <= remaining_in_current());
  written_ += bytes;
  SkipComplete();
}

void TensorSequence::SkipComplete() {
  while (current_ < tensors_.size() && written_ == bytes_[current_]) {
    ++current_;
    written_ = 0;
  }
}

absl::Status TensorSequence::CheckComplete() const {
  if (current_ == tensors_.size()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("tensor ", tensors_[current_].name, ": ",
                                                    remaining_in_current(), " of ",
                                                    bytes_[current_], " bytes are missing"));
}

}  // namespace essor::model
