// Read-only access to the tensors of a checkpoint, whatever its file format.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/dtype.h"

namespace essor::model {

// One tensor inside a mapped file. The bytes stay valid as long as the Checkpoint lives.
struct TensorView {
  std::string name;
  std::string file;  // for error messages
  DType dtype = DType::kF32;
  std::vector<uint64_t> shape;      // row-major, outermost first: a matrix is [rows, cols]
  std::span<const std::byte> data;  // StorageBytes(dtype, product of shape); no alignment promised
};

// Columns [first_col, end_col) of one row of a matrix; rows of a stack count on over its matrices.
struct RowPart {
  uint64_t row;
  uint64_t first_col;
  uint64_t end_col;  // above first_col
};

// The tensors of one model. Immutable after opening; thread-safe.
class Checkpoint {
 public:
  virtual ~Checkpoint() = default;

  // NotFound naming the tensor when there is none; InvalidArgument naming file, tensor and type for
  // one whose type the format knows and Essor does not read (the rest of the file stays usable).
  virtual absl::StatusOr<TensorView> Find(const std::string& name) const = 0;
  virtual bool Contains(const std::string& name) const = 0;
  // Sorted.
  virtual std::vector<std::string> TensorNames() const = 0;
  // Hex digest over format, tensor names, types, shapes, file sizes and a few bytes of a few
  // tensors of each size: cheap (some page reads), equal for equal files, different for another
  // model, such as one of the same shape made with another seed. Not proof against forgery.
  virtual std::string Fingerprint() const = 0;
};

// Opens a directory with model.safetensors or model.safetensors.index.json (the sharded form), or
// one file of any name.
// InvalidArgument naming file and tensor for every lie in a header: length beyond the file,
// offsets outside or overlapping or with gaps, unknown dtype, size that contradicts the shape,
// duplicate names, an index that names a missing file or tensor.
absl::StatusOr<std::unique_ptr<Checkpoint>> OpenSafetensors(const std::string& path);

// Reads `num_elements` elements of `tensor` beginning at element `first` into `out` as float32,
// whatever the dtype (block-quantised ones included; `first` and the count may cut blocks).
// OutOfRange outside the tensor; InvalidArgument for integer types, and for those that are
// nothing without the scales of another tensor (fp8_blocks.h, nibble_groups.h).
absl::Status DecodeToFloat(const TensorView& tensor, uint64_t first, std::span<float> out);

// Canonical forms of quantised rows, exact images of the stored blocks. `first` and the count must
// be multiples of 32 (InvalidArgument otherwise).
struct Q8Rows {
  std::span<int8_t> values;    // [elements]
  std::span<uint16_t> scales;  // [elements / 32] IEEE half bits; w = scale * value
};
absl::Status ReadQ8(const TensorView& tensor, uint64_t first, Q8Rows out);  // kQ8_0 only

struct Q4Rows {
  std::span<uint8_t> values;  // [elements] 0..15, one a byte
  std::span<float> scales;    // [elements / 32]; w = scale * value + minimum
  std::span<float> minima;    // [elements / 32]
};
absl::Status ReadQ4(const TensorView& tensor, uint64_t first, Q4Rows out);  // kQ4_0, kQ4_1, kQ4_K

}  // namespace essor::model
