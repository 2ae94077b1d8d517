// The bytes of a GGUF file: numbers of the format, and the parser of everything but tensor data.
// Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and ggml's type table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "model/checkpoint/gguf.h"
#include "model/checkpoint/tensor_table.h"

namespace essor::model {

inline constexpr uint32_t kGgufMagic = 0x46554747;  // "GGUF", little-endian
inline constexpr uint32_t kGgufVersion = 3;         // written; 2 and 3 are read
inline constexpr uint64_t kGgufDefaultAlignment = 32;
inline constexpr size_t kGgufDimensionsMax = 4;
// Of a file, everything before the tensors' data: values take up to eight times their bytes in
// memory. The largest vocabularies with their merges have some 20 MB.
inline constexpr uint64_t kGgufHeadBytesMax = uint64_t{512} << 20;

// Types of metadata values, as stored.
enum class GgufValueType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

// A tensor type of ggml.
struct GgufTensorType {
  uint32_t id;
  const char* name;  // ggml's word: "Q4_K"
  uint32_t block_elements;
  uint32_t block_bytes;
  std::optional<DType> dtype;  // what Essor reads it as
};

// nullptr for an unknown id; every id that ggml has used in files has an entry.
const GgufTensorType* FindGgufType(uint32_t id);
// Never null: every DType but kU8 has an entry (ESSOR_CHECK).
const GgufTensorType& GgufTypeOf(DType dtype);

struct GgufContents {
  absl::flat_hash_map<std::string, GgufValue> metadata;
  std::vector<TensorEntry> tensors;
};

// Pure. The views point into `bytes`; `path` is for messages only. Errors as GgufFile::Open.
// Memory is bounded by a small multiple of the file's size, whatever its counts claim.
absl::StatusOr<GgufContents> ParseGguf(std::span<const std::byte> bytes, const std::string& path);

}  // namespace essor::model
