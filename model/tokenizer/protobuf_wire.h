// The protocol buffers wire format (https://protobuf.dev/programming-guides/encoding), read without
// a schema compiler: sentencepiece_model.proto needs a dozen fields.
#pragma once

#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"

namespace essor::model {

// One field of a message.
struct ProtobufField {
  enum class Kind : uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

  uint32_t number = 0;
  Kind kind = Kind::kVarint;
  uint64_t value = 0;      // of all kinds but kBytes; fixed ones as their bits
  std::string_view bytes;  // of kBytes: inside the message that was read

  bool Is(uint32_t wanted_number, Kind wanted_kind) const {
    return number == wanted_number && kind == wanted_kind;
  }
  float AsFloat() const;  // of kFixed32
};

// Reads the fields of `message` in order. Thread-compatible; `message` must outlive what is read.
class ProtobufReader {
 public:
  explicit ProtobufReader(std::string_view message) : rest_(message) {}

  bool AtEnd() const { return rest_.empty(); }
  // Not at the end. InvalidArgument for what is no field: cut off, a group, a bad number.
  absl::StatusOr<ProtobufField> Next();

 private:
  absl::StatusOr<uint64_t> Varint();
  absl::StatusOr<std::string_view> Take(uint64_t size);

  std::string_view rest_;
};

}  // namespace essor::model
