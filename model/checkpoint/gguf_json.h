// The JSON text that GgufConfigToHf writes.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "rapidjson/prettywriter.h"
#include "rapidjson/stringbuffer.h"

namespace essor::model {

// Members of the object that is open, one call each.
class GgufJson {
 public:
  GgufJson() : writer_(buffer_) { writer_.SetIndent(' ', 2), writer_.StartObject(); }

  void Uint(const char* key, uint64_t value) { writer_.Key(key), writer_.Uint64(value); }
  void Real(const char* key, double value) { writer_.Key(key), writer_.Double(value); }
  void Bool(const char* key, bool value) { writer_.Key(key), writer_.Bool(value); }
  void Text(const char* key, const std::string& value) {
    writer_.Key(key), writer_.String(value.c_str());
  }
  void Null(const char* key) { writer_.Key(key), writer_.Null(); }
  void Texts(const char* key, std::initializer_list<const char*> values) {
    writer_.Key(key), writer_.StartArray();
    for (const char* value : values) writer_.String(value);
    writer_.EndArray();
  }
  void Uints(const char* key, const std::vector<uint64_t>& values) {
    writer_.Key(key), writer_.StartArray();
    for (const uint64_t value : values) writer_.Uint64(value);
    writer_.EndArray();
  }
  // Members between the two belong to the object `key`.
  void StartObject(const char* key) { writer_.Key(key), writer_.StartObject(); }
  void EndObject() { writer_.EndObject(); }

  // The whole text; nothing may be written after it.
  std::string Finish() {
    writer_.EndObject();
    return std::string(buffer_.GetString(), buffer_.GetSize()) + "\n";
  }

 private:
  rapidjson::StringBuffer buffer_;
  rapidjson::PrettyWriter<rapidjson::StringBuffer> writer_;
};

}  // namespace essor::model
