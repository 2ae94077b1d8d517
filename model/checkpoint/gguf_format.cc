#include "model/checkpoint/gguf_format.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status_macros.h"
#include "model/checkpoint/gguf_cursor.h"

namespace essor::model {
namespace {

// Block sizes of every type that ggml has ever given an id and still reads.
constexpr GgufTensorType kTypes[] = {
    {0, "F32", 1, 4, DType::kF32},          {1, "F16", 1, 2, DType::kF16},
    {2, "Q4_0", 32, 18, DType::kQ4_0},      {3, "Q4_1", 32, 20, DType::kQ4_1},
    {6, "Q5_0", 32, 22, std::nullopt},      {7, "Q5_1", 32, 24, std::nullopt},
    {8, "Q8_0", 32, 34, DType::kQ8_0},      {9, "Q8_1", 32, 40, std::nullopt},
    {10, "Q2_K", 256, 84, std::nullopt},    {11, "Q3_K", 256, 110, std::nullopt},
    {12, "Q4_K", 256, 144, DType::kQ4_K},   {13, "Q5_K", 256, 176, std::nullopt},
    {14, "Q6_K", 256, 210, DType::kQ6_K},   {15, "Q8_K", 256, 292, std::nullopt},
    {16, "IQ2_XXS", 256, 66, std::nullopt}, {17, "IQ2_XS", 256, 74, std::nullopt},
    {18, "IQ3_XXS", 256, 98, std::nullopt}, {19, "IQ1_S", 256, 50, std::nullopt},
    {20, "IQ4_NL", 32, 18, std::nullopt},   {21, "IQ3_S", 256, 110, std::nullopt},
    {22, "IQ2_S", 256, 82, std::nullopt},   {23, "IQ4_XS", 256, 136, std::nullopt},
    {24, "I8", 1, 1, std::nullopt},         {25, "I16", 1, 2, std::nullopt},
    {26, "I32", 1, 4, DType::kI32},         {27, "I64", 1, 8, DType::kI64},
    {28, "F64", 1, 8, std::nullopt},        {29, "IQ1_M", 256, 56, std::nullopt},
    {30, "BF16", 1, 2, DType::kBF16},       {34, "TQ1_0", 256, 54, std::nullopt},
    {35, "TQ2_0", 256, 66, std::nullopt},   {39, "MXFP4", 32, 17, std::nullopt},
};

// The fewest bytes one entry can take: name length, value type, one byte; name length, number of
// dimensions, type, offset. Counts beyond what the file could hold are refused before any work.
constexpr uint64_t kMetadataBytesMin = 8 + 4 + 1;
constexpr uint64_t kTensorBytesMin = 8 + 4 + 4 + 8;
constexpr uint64_t kNameBytesMax = 65535;  // the specification's limit on keys

// Bytes of one value of a fixed-size type; the least a string can take otherwise.
absl::StatusOr<uint64_t> ValueBytesMin(GgufValueType type) {
  switch (type) {
    case GgufValueType::kUint8:
    case GgufValueType::kInt8:
    case GgufValueType::kBool:
      return 1;
    case GgufValueType::kUint16:
    case GgufValueType::kInt16:
      return 2;
    case GgufValueType::kUint32:
    case GgufValueType::kInt32:
    case GgufValueType::kFloat32:
      return 4;
    case GgufValueType::kUint64:
    case GgufValueType::kInt64:
    case GgufValueType::kFloat64:
    case GgufValueType::kString:
      return 8;
    case GgufValueType::kArray:
      return absl::InvalidArgumentError("arrays of arrays are not supported");
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown value type ", static_cast<uint32_t>(type)));
}

template <typename Stored, typename Value>
absl::Status ReadNumber(GgufCursor& cursor, const std::string& what, Value& value) {
  Stored stored{};
  ESSOR_RETURN_IF_ERROR(cursor.Read(what, stored));
  value = static_cast<Value>(stored);
  return absl::OkStatus();
}

absl::Status ReadBool(GgufCursor& cursor, const std::string& what, bool& value) {
  uint8_t stored = 0;
  ESSOR_RETURN_IF_ERROR(cursor.Read(what, stored));
  if (stored > 1) {
    return cursor.Bad(absl::StrCat(what, ": a bool must be 0 or 1, not ", uint32_t{stored}));
  }
  value = stored == 1;
  return absl::OkStatus();
}

// `count` values through `read`, as one vector.
template <typename Value, typename Read>
absl::StatusOr<GgufValue> ReadArray(GgufCursor& cursor, const std::string& what, uint64_t count,
                                    Read read) {
  std::vector<Value> values;
  values.reserve(count);  // bounded by the caller
  for (uint64_t i = 0; i < count; ++i) {
    Value value{};
    ESSOR_RETURN_IF_ERROR(read(cursor, what, value));
    values.push_back(std::move(value));
  }
  return GgufValue(std::move(values));
}

template <typename Value, typename Read>
absl::StatusOr<GgufValue> ReadOneOrMany(GgufCursor& cursor, const std::string& what,
                                        std::optional<uint64_t> count, Read read) {
  if (count) return ReadArray<Value>(cursor, what, *count, read);
  Value value{};
  ESSOR_RETURN_IF_ERROR(read(cursor, what, value));
  return GgufValue(std::move(value));
}

// One value, or `count` of them as an array.
absl::StatusOr<GgufValue> ReadValues(GgufCursor& cursor, const std::string& what,
                                     GgufValueType type, std::optional<uint64_t> count) {
  switch (type) {
    case GgufValueType::kUint8:
      return ReadOneOrMany<uint64_t>(cursor, what, count, ReadNumber<uint8_t, uint64_t>);
    case GgufValueType::kInt8:
      return ReadOneOrMany<int64_t>(cursor, what, count, ReadNumber<int8_t, int64_t>);
    case GgufValueType::kUint16:
      return ReadOneOrMany<uint64_t>(cursor, what, count, ReadNumber<uint16_t, uint64_t>);
    case GgufValueType::kInt16:
      return ReadOneOrMany<int64_t>(cursor, what, count, ReadNumber<int16_t, int64_t>);
    case GgufValueType::kUint32:
      return ReadOneOrMany<uint64_t>(cursor, what, count, ReadNumber<uint32_t, uint64_t>);
    case GgufValueType::kInt32:
      return ReadOneOrMany<int64_t>(cursor, what, count, ReadNumber<int32_t, int64_t>);
    case GgufValueType::kUint64:
      return ReadOneOrMany<uint64_t>(cursor, what, count, ReadNumber<uint64_t, uint64_t>);
    case GgufValueType::kInt64:
      return ReadOneOrMany<int64_t>(cursor, what, count, ReadNumber<int64_t, int64_t>);
    case GgufValueType::kFloat32:
      return ReadOneOrMany<double>(cursor, what, count, ReadNumber<float, double>);
    case GgufValueType::kFloat64:
      return ReadOneOrMany<double>(cursor, what, count, ReadNumber<double, double>);
    case GgufValueType::kBool:
      return ReadOneOrMany<bool>(cursor, what, count, ReadBool);
    case GgufValueType::kString:
      return ReadOneOrMany<std::string>(
          cursor, what, count, [](GgufCursor& from, const std::string& name, std::string& value) {
            return from.ReadString(name, from.remaining(), value);
          });
    case GgufValueType::kArray:
      break;
  }
  ESSOR_CHECK(false && "types are checked by ValueBytesMin");
}

absl::StatusOr<GgufValue> ReadValue(GgufCursor& cursor, const std::string& what) {
  uint32_t stored_type = 0;
  ESSOR_RETURN_IF_ERROR(cursor.Read(what, stored_type));
  auto type = static_cast<GgufValueType>(stored_type);
  std::optional<uint64_t> count;
  if (type == GgufValueType::kArray) {
    ESSOR_RETURN_IF_ERROR(cursor.Read(what, stored_type));
    type = static_cast<GgufValueType>(stored_type);
    uint64_t stored_count = 0;
    ESSOR_RETURN_IF_ERROR(cursor.Read(what, stored_count));
    count = stored_count;
  }
  const absl::StatusOr<uint64_t> bytes_min = ValueBytesMin(type);
  if (!bytes_min.ok()) {
    return cursor.Bad(absl::StrCat(what, ": ", bytes_min.status().message()));
  }
  if (count && *count > cursor.remaining() / *bytes_min) {
    return cursor.Bad(absl::StrCat(what, ": an array of ", *count, " values does not fit into the ",
                                   cursor.BytesLeft()));
  }
  return ReadValues(cursor, what, type, count);
}

absl::Status ReadMetadata(GgufCursor& cursor, uint64_t count,
                          absl::flat_hash_map<std::string, GgufValue>& metadata) {
  for (uint64_t i = 0; i < count; ++i) {
    std::string key;
    ESSOR_RETURN_IF_ERROR(cursor.ReadString(absl::StrCat("metadata key ", i), kNameBytesMax, key));
    ESSOR_ASSIGN_OR_RETURN(GgufValue value, ReadValue(cursor, absl::StrCat("metadata key ", key)));
    if (!metadata.emplace(key, std::move(value)).second) {
      return cursor.Bad(absl::StrCat("metadata key ", key, " occurs twice"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> Alignment(const GgufCursor& cursor,
                                   const absl::flat_hash_map<std::string, GgufValue>& metadata) {
  const auto it = metadata.find("general.alignment");
  if (it == metadata.end()) return kGgufDefaultAlignment;
  const uint64_t* const alignment = std::get_if<uint64_t>(&it->second);
  if (alignment == nullptr || *alignment == 0 || (*alignment & (*alignment - 1)) != 0) {
    return cursor.Bad("general.alignment must be a power of two");
  }
  return *alignment;
}

// A tensor's entry and where the file says its data begins, relative to the data section.
struct PlacedTensor {
  TensorEntry entry;
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

absl::StatusOr<PlacedTensor> ReadTensorInfo(GgufCursor& cursor, uint64_t index) {
  PlacedTensor tensor;
  std::string name;
  ESSOR_RETURN_IF_ERROR(
      cursor.ReadString(absl::StrCat("the name of tensor ", index), kNameBytesMax, name));
  const std::string what = absl::StrCat("tensor ", name);
  uint32_t dimensions = 0;
  ESSOR_RETURN_IF_ERROR(cursor.Read(what, dimensions));
  if (dimensions == 0 || dimensions > kGgufDimensionsMax) {
    return cursor.Bad(absl::StrCat(what, ": has ", dimensions, " dimensions, 1 to ",
                                   kGgufDimensionsMax, " are allowed"));
  }
  std::vector<uint64_t> shape(dimensions);
  for (uint64_t& extent : shape) {
    ESSOR_RETURN_IF_ERROR(cursor.Read(what, extent));
    if (extent == 0) return cursor.Bad(absl::StrCat(what, ": has a dimension of 0"));
  }
  uint32_t type_id = 0;
  ESSOR_RETURN_IF_ERROR(cursor.Read(what, type_id));
  ESSOR_RETURN_IF_ERROR(cursor.Read(what, tensor.offset));

  const GgufTensorType* const type = FindGgufType(type_id);
  if (type == nullptr) return cursor.Bad(absl::StrCat(what, ": unknown type ", type_id));
  if (shape[0] % type->block_elements != 0) {
    return cursor.Bad(absl::StrCat(what, ": rows of ", shape[0], " elements do not divide into ",
                                   type->name, " blocks of ", type->block_elements));
  }
  const std::optional<uint64_t> elements = ElementCount(shape);
  if (!elements || __builtin_mul_overflow(*elements / type->block_elements,
                                          uint64_t{type->block_bytes}, &tensor.bytes)) {
    return cursor.Bad(absl::StrCat(what, ": its shape is too large"));
  }
  std::reverse(shape.begin(), shape.end());  // stored innermost first
  TensorEntry& entry = tensor.entry;
  entry.view.name = std::move(name);
  entry.view.file = cursor.path();
  entry.view.shape = std::move(shape);
  entry.supported = type->dtype.has_value();
  entry.view.dtype = type->dtype.value_or(DType::kU8);
  entry.stored_type = type->name;
  return tensor;
}

// Gives every tensor its bytes; refuses what is misaligned, outside the file or shared.
absl::Status PlaceTensors(const GgufCursor& cursor, uint64_t alignment,
                          std::vector<PlacedTensor>& tensors) {
  uint64_t begin = 0;
  if (__builtin_add_overflow(cursor.position(), alignment - 1, &begin)) {
    return cursor.Bad("general.alignment is too large");
  }
  begin = std::min<uint64_t>(begin / alignment * alignment, cursor.bytes().size());
  const std::span<const std::byte> data = cursor.bytes().subspan(begin);
  std::sort(tensors.begin(), tensors.end(),
            [](const PlacedTensor& a, const PlacedTensor& b) { return a.offset < b.offset; });
  uint64_t previous_end = 0;
  for (PlacedTensor& tensor : tensors) {
    const std::string what = absl::StrCat("tensor ", tensor.entry.view.name);
    if (tensor.offset % alignment != 0) {
      return cursor.Bad(absl::StrCat(what, ": offset ", tensor.offset,
                                     " is not a multiple of the alignment ", alignment));
    }
    if (tensor.offset > data.size() || tensor.bytes > data.size() - tensor.offset) {
      return cursor.Bad(absl::StrCat(what, ": ", tensor.bytes, " bytes at offset ", tensor.offset,
                                     " lie outside the ", data.size(), " bytes of data"));
    }
    if (tensor.offset < previous_end) {
      return cursor.Bad(
          absl::StrCat(what, ": overlaps the tensor before it, which ends at ", previous_end));
    }
    previous_end = tensor.offset + tensor.bytes;
    tensor.entry.view.data = data.subspan(tensor.offset, tensor.bytes);
  }
  return absl::OkStatus();
}

absl::Status CheckCount(const GgufCursor& cursor, const char* what, uint64_t count,
                        uint64_t bytes_each) {
  if (count <= cursor.remaining() / bytes_each) return absl::OkStatus();
  return cursor.Bad(
      absl::StrCat("claims ", count, " ", what, ", more than fit into the ", cursor.BytesLeft()));
}

}  // namespace

const GgufTensorType* FindGgufType(uint32_t id) {
  const auto it = std::find_if(std::begin(kTypes), std::end(kTypes),
                               [&](const GgufTensorType& type) { return type.id == id; });
  return it == std::end(kTypes) ? nullptr : it;
}

const GgufTensorType& GgufTypeOf(DType dtype) {
  const auto it = std::find_if(std::begin(kTypes), std::end(kTypes),
                               [&](const GgufTensorType& type) { return type.dtype == dtype; });
  ESSOR_CHECK(it != std::end(kTypes));
  return *it;
}

absl::StatusOr<GgufContents> ParseGguf(std::span<const std::byte> bytes, const std::string& path) {
  GgufCursor cursor(bytes, kGgufHeadBytesMax, path);
  uint32_t magic = 0;
  uint32_t version = 0;
  uint64_t num_tensors = 0;
  uint64_t num_metadata = 0;
  ESSOR_RETURN_IF_ERROR(cursor.Read("the magic", magic));
  if (magic != kGgufMagic) return cursor.Bad("is not a GGUF file (bad magic)");
  ESSOR_RETURN_IF_ERROR(cursor.Read("the version", version));
  if (version != 2 && version != 3) {
    return cursor.Bad(absl::StrCat("GGUF version ", version, " is not supported (2 and 3 are)"));
  }
  ESSOR_RETURN_IF_ERROR(cursor.Read("the tensor count", num_tensors));
  ESSOR_RETURN_IF_ERROR(cursor.Read("the metadata count", num_metadata));
  ESSOR_RETURN_IF_ERROR(CheckCount(cursor, "metadata keys", num_metadata, kMetadataBytesMin));
  ESSOR_RETURN_IF_ERROR(CheckCount(cursor, "tensors", num_tensors, kTensorBytesMin));

  GgufContents contents;
  ESSOR_RETURN_IF_ERROR(ReadMetadata(cursor, num_metadata, contents.metadata));
  ESSOR_ASSIGN_OR_RETURN(const uint64_t alignment, Alignment(cursor, contents.metadata));

  std::vector<PlacedTensor> tensors;
  absl::flat_hash_set<std::string> names;
  for (uint64_t i = 0; i < num_tensors; ++i) {
    ESSOR_ASSIGN_OR_RETURN(PlacedTensor tensor, ReadTensorInfo(cursor, i));
    if (!names.insert(tensor.entry.view.name).second) {
      return cursor.Bad(absl::StrCat("tensor ", tensor.entry.view.name, " occurs twice"));
    }
    tensors.push_back(std::move(tensor));
  }
  ESSOR_RETURN_IF_ERROR(PlaceTensors(cursor, alignment, tensors));
  contents.tensors.reserve(tensors.size());
  for (PlacedTensor& tensor : tensors) contents.tensors.push_back(std::move(tensor.entry));
  return contents;
}

}  // namespace essor::model
