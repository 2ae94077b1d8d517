#include "model/checkpoint/safetensors_header.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <string_view>
#include <tuple>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "simdjson.h"

namespace essor::model {
namespace {

constexpr uint64_t kLengthBytes = 8;
// PyTorch stops at 64 dimensions, real models at 5.
constexpr size_t kDimensionsMax = 64;

struct SafetensorsType {
  std::string_view name;
  uint32_t bits;
  std::optional<DType> dtype;  // what Essor reads it as
};

// Every type of safetensors 0.8.
constexpr std::array<SafetensorsType, 22> kTypes = {{
    {"F32", 32, DType::kF32},         {"F16", 16, DType::kF16},
    {"BF16", 16, DType::kBF16},       {"I64", 64, DType::kI64},
    {"I32", 32, DType::kI32},         {"U8", 8, DType::kU8},
    {"BOOL", 8, std::nullopt},        {"I8", 8, std::nullopt},
    {"I16", 16, std::nullopt},        {"U16", 16, std::nullopt},
    {"U32", 32, std::nullopt},        {"U64", 64, std::nullopt},
    {"F64", 64, std::nullopt},        {"C64", 64, std::nullopt},
    {"F8_E4M3", 8, DType::kF8E4M3},   {"F8_E5M2", 8, std::nullopt},
    {"F8_E8M0", 8, DType::kF8E8M0},   {"F8_E4M3FNUZ", 8, std::nullopt},
    {"F8_E5M2FNUZ", 8, std::nullopt}, {"F6_E2M3", 6, std::nullopt},
    {"F6_E3M2", 6, std::nullopt},     {"F4", 4, std::nullopt},
}};

// A tensor's fields as the header states them, not yet checked against each other.
struct StatedTensor {
  std::string name;
  std::string dtype;
  std::vector<uint64_t> shape;
  uint64_t begin = 0;
  uint64_t end = 0;
};

absl::Status Bad(const std::string& path, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", what));
}

absl::Status BadTensor(const std::string& path, const std::string& tensor,
                       const std::string& what) {
  return Bad(path, absl::StrCat("tensor ", tensor, ": ", what));
}

absl::StatusOr<std::vector<uint64_t>> ReadUnsignedArray(simdjson::dom::element value,
                                                        size_t size_max) {
  simdjson::dom::array array;
  if (value.get_array().get(array) != simdjson::SUCCESS) {
    return absl::InvalidArgumentError("must be an array");
  }
  std::vector<uint64_t> numbers;
  for (const simdjson::dom::element item : array) {
    uint64_t number = 0;
    if (item.get_uint64().get(number) != simdjson::SUCCESS) {
      return absl::InvalidArgumentError("must hold non-negative integers");
    }
    if (numbers.size() == size_max) {
      return absl::InvalidArgumentError(absl::StrCat("has more than ", size_max, " entries"));
    }
    numbers.push_back(number);
  }
  return numbers;
}

absl::StatusOr<StatedTensor> ReadTensor(const std::string& path, const std::string& name,
                                        simdjson::dom::element value) {
  StatedTensor stated;
  stated.name = name;
  simdjson::dom::object object;
  if (value.get_object().get(object) != simdjson::SUCCESS) {
    return BadTensor(path, name, "its header entry must be an object");
  }
  std::string_view dtype;
  if (object["dtype"].get_string().get(dtype) != simdjson::SUCCESS) {
    return BadTensor(path, name, "dtype is missing or not a string");
  }
  stated.dtype = std::string(dtype);
  for (const char* const field : {"shape", "data_offsets"}) {
    simdjson::dom::element element;
    if (object[field].get(element) != simdjson::SUCCESS) {
      return BadTensor(path, name, absl::StrCat(field, " is missing"));
    }
    const bool is_shape = field[0] == 's';
    absl::StatusOr<std::vector<uint64_t>> numbers =
        ReadUnsignedArray(element, is_shape ? kDimensionsMax : 2);
    if (!numbers.ok()) {
      return BadTensor(path, name, absl::StrCat(field, " ", numbers.status().message()));
    }
    if (is_shape) {
      stated.shape = *std::move(numbers);
      continue;
    }
    if (numbers->size() != 2) return BadTensor(path, name, "data_offsets must hold two integers");
    stated.begin = (*numbers)[0];
    stated.end = (*numbers)[1];
  }
  return stated;
}

absl::StatusOr<TensorEntry> CheckTensor(const std::string& path, const StatedTensor& stated,
                                        std::span<const std::byte> data) {
  const auto type = std::find_if(kTypes.begin(), kTypes.end(), [&](const SafetensorsType& known) {
    return known.name == stated.dtype;
  });
  if (type == kTypes.end()) {
    return BadTensor(path, stated.name, absl::StrCat("unknown dtype ", stated.dtype));
  }
  if (stated.begin > stated.end || stated.end > data.size()) {
    return BadTensor(path, stated.name,
                     absl::StrCat("data_offsets ", stated.begin, " to ", stated.end,
                                  " lie outside the ", data.size(), " bytes of data"));
  }
  const std::optional<uint64_t> elements = ElementCount(stated.shape);
  uint64_t bits = 0;
  if (!elements || __builtin_mul_overflow(*elements, uint64_t{type->bits}, &bits)) {
    return BadTensor(path, stated.name, "its shape is too large");
  }
  const uint64_t bytes = stated.end - stated.begin;
  if (bits % 8 != 0 || bits / 8 != bytes) {
    return BadTensor(path, stated.name,
                     absl::StrCat("its shape and dtype need ", (bits + 7) / 8,
                                  " bytes, data_offsets give ", bytes));
  }
  TensorEntry entry;
  entry.view.name = stated.name;
  entry.view.file = path;
  entry.view.shape = stated.shape;
  entry.view.data = data.subspan(stated.begin, bytes);
  entry.supported = type->dtype.has_value();
  entry.view.dtype = type->dtype.value_or(DType::kU8);
  entry.stored_type = stated.dtype;
  return entry;
}

// Together the tensors must fill the data exactly: no gap hides bytes, no overlap shares them.
absl::Status CheckTiling(const std::string& path, std::vector<StatedTensor>& stated,
                         uint64_t data_bytes) {
  std::sort(stated.begin(), stated.end(), [](const StatedTensor& a, const StatedTensor& b) {
    return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
  });
  uint64_t position = 0;
  for (const StatedTensor& tensor : stated) {
    if (tensor.begin != position) {
      return BadTensor(path, tensor.name,
                       absl::StrCat("begins at byte ", tensor.begin, " of the data, but ",
                                    tensor.begin < position ? "the tensor before it ends at "
                                                            : "there is a gap from ",
                                    position));
    }
    position = tensor.end;
  }
  if (position != data_bytes) {
    return Bad(path, absl::StrCat("the tensors end at byte ", position,
                                  " of the data, the file at ", data_bytes));
  }
  return absl::OkStatus();
}

absl::Status CheckMetadata(const std::string& path, simdjson::dom::element value) {
  simdjson::dom::object object;
  if (value.get_object().get(object) != simdjson::SUCCESS) {
    return Bad(path, "__metadata__ must be an object");
  }
  for (const auto field : object) {
    if (!field.value.is_string()) {
      return Bad(path, absl::StrCat("__metadata__ ", std::string(field.key), " must be a string"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> HeaderBytes(std::span<const std::byte> bytes, const std::string& path) {
  if (bytes.size() < kLengthBytes) {
    return Bad(
        path, absl::StrCat("is ", bytes.size(), " bytes long, too short for a safetensors header"));
  }
  uint64_t length = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) {
    length |= std::to_integer<uint64_t>(bytes[i]) << (8 * i);
  }
  if (length > kSafetensorsHeaderBytesMax) {
    return Bad(path, absl::StrCat("a header of ", length, " bytes is over the limit of ",
                                  kSafetensorsHeaderBytesMax));
  }
  if (length > bytes.size() - kLengthBytes) {
    return Bad(path, absl::StrCat("a header of ", length, " bytes does not fit into a file of ",
                                  bytes.size()));
  }
  return length;
}

}  // namespace

absl::StatusOr<std::vector<TensorEntry>> ParseSafetensors(std::span<const std::byte> bytes,
                                                          const std::string& path) {
  ESSOR_ASSIGN_OR_RETURN(const uint64_t header_bytes, HeaderBytes(bytes, path));
  const std::span<const std::byte> data = bytes.subspan(kLengthBytes + header_bytes);
  const simdjson::padded_string json(reinterpret_cast<const char*>(bytes.data()) + kLengthBytes,
                                     header_bytes);
  simdjson::dom::parser parser;  // limits the depth of nesting itself, and does not recurse
  simdjson::dom::object header;
  if (const auto error = parser.parse(json).get_object().get(header); error != simdjson::SUCCESS) {
    return Bad(path,
               absl::StrCat("the header is not a JSON object: ", simdjson::error_message(error)));
  }

  std::vector<StatedTensor> stated;
  absl::flat_hash_set<std::string> names;
  for (const auto field : header) {
    const std::string name(field.key);
    if (!names.insert(name).second) return BadTensor(path, name, "occurs twice");
    if (name == "__metadata__") {
      ESSOR_RETURN_IF_ERROR(CheckMetadata(path, field.value));
      continue;
    }
    ESSOR_ASSIGN_OR_RETURN(StatedTensor tensor, ReadTensor(path, name, field.value));
    stated.push_back(std::move(tensor));
  }

  std::vector<TensorEntry> entries;
  entries.reserve(stated.size());
  for (const StatedTensor& tensor : stated) {
    ESSOR_ASSIGN_OR_RETURN(TensorEntry entry, CheckTensor(path, tensor, data));
    entries.push_back(std::move(entry));
  }
  ESSOR_RETURN_IF_ERROR(CheckTiling(path, stated, data.size()));
  return entries;
}

std::string SafetensorsTypeName(DType dtype) {
  for (const SafetensorsType& type : kTypes) {
    if (type.dtype == dtype) return std::string(type.name);
  }
  return "";
}

}  // namespace essor::model
