#include "model/tokenizer/protobuf_wire.h"

#include <bit>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"

namespace essor::model {
namespace {

uint64_t LittleEndian(std::string_view bytes) {
  uint64_t value = 0;
  for (size_t i = bytes.size(); i-- > 0;) value = (value << 8) | static_cast<uint8_t>(bytes[i]);
  return value;
}

}  // namespace

float ProtobufField::AsFloat() const { return std::bit_cast<float>(static_cast<uint32_t>(value)); }

absl::StatusOr<uint64_t> ProtobufReader::Varint() {
  uint64_t value = 0;
  for (unsigned shift = 0; shift < 64; shift += 7) {
    if (rest_.empty()) return absl::InvalidArgumentError("a number is cut off");
    const auto byte = static_cast<uint8_t>(rest_.front());
    rest_.remove_prefix(1);
    value |= uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) return value;
  }
  return absl::InvalidArgumentError("a number of more than 64 bits");
}

absl::StatusOr<std::string_view> ProtobufReader::Take(uint64_t size) {
  if (size > rest_.size()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("a field of %d bytes where %d are left", size, rest_.size()));
  }
  const std::string_view bytes = rest_.substr(0, size);
  rest_.remove_prefix(size);
  return bytes;
}

absl::StatusOr<ProtobufField> ProtobufReader::Next() {
  ProtobufField field;
  ESSOR_ASSIGN_OR_RETURN(const uint64_t tag, Varint());
  const uint64_t number = tag >> 3;
  if (number == 0 || number >= (uint64_t{1} << 29)) {
    return absl::InvalidArgumentError(absl::StrFormat("field number %d", number));
  }
  field.number = static_cast<uint32_t>(number);
  field.kind = static_cast<ProtobufField::Kind>(tag & 7);
  switch (field.kind) {
    case ProtobufField::Kind::kVarint: {
      ESSOR_ASSIGN_OR_RETURN(field.value, Varint());
      return field;
    }
    case ProtobufField::Kind::kFixed64:
    case ProtobufField::Kind::kFixed32: {
      ESSOR_ASSIGN_OR_RETURN(const std::string_view bytes,
                             Take(field.kind == ProtobufField::Kind::kFixed64 ? 8 : 4));
      field.value = LittleEndian(bytes);
      return field;
    }
    case ProtobufField::Kind::kBytes: {
      ESSOR_ASSIGN_OR_RETURN(const uint64_t size, Varint());
      ESSOR_ASSIGN_OR_RETURN(field.bytes, Take(size));
      return field;
    }
  }
  return absl::InvalidArgumentError(
      absl::StrFormat("field %d has wire type %d", field.number, tag & 7));
}

}  // namespace essor::model
