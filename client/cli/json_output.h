// Writes the JSON that commands print.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "rapidjson/stringbuffer.h"
#include "rapidjson/writer.h"

namespace essor::cli {

// One document, built in memory. Calls follow RapidJSON's order; every string must be UTF-8.
class JsonOutput {
 public:
  void StartObject() { writer_.StartObject(); }
  void EndObject() { writer_.EndObject(); }
  void StartArray() { writer_.StartArray(); }
  void EndArray() { writer_.EndArray(); }
  void Key(std::string_view key) { writer_.Key(key.data(), static_cast<uint32_t>(key.size())); }

  void Value(std::string_view text) {
    writer_.String(text.data(), static_cast<uint32_t>(text.size()));
  }
  void Value(uint64_t number) { writer_.Uint64(number); }
  void Value(int64_t number) { writer_.Int64(number); }
  void Value(uint32_t number) { writer_.Uint(number); }
  // Null where it is not finite: JSON has no other word.
  void Value(double number);
  // As few digits as give the same float back.
  void Value(float number);
  void Value(std::span<const uint32_t> numbers);
  void Value(std::span<const float> numbers);

  template <typename T>
  void Field(std::string_view key, const T& value) {
    Key(key);
    Value(value);
  }

  // The document and a newline, to stdout.
  void Print() const;
  std::string text() const { return {buffer_.GetString(), buffer_.GetSize()}; }

 private:
  rapidjson::StringBuffer buffer_;
  rapidjson::Writer<rapidjson::StringBuffer> writer_{buffer_};
};

}  // namespace essor::cli
