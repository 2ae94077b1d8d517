// For tests: builds GGUF files field by field, lies included.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

#include "model/checkpoint/gguf_format.h"

namespace essor::model {

class GgufBytes {
 public:
  template <typename T>
  GgufBytes& Put(T value) {
    char raw[sizeof(T)];
    std::memcpy(raw, &value, sizeof(T));
    bytes_.append(raw, sizeof(T));
    return *this;
  }
  GgufBytes& Text(const std::string& text) {
    Put<uint64_t>(text.size());
    bytes_ += text;
    return *this;
  }
  GgufBytes& Header(uint64_t tensors, uint64_t keys, uint32_t version = 3) {
    return Put(kGgufMagic).Put(version).Put(tensors).Put(keys);
  }
  GgufBytes& Key(const std::string& key, GgufValueType type) {
    return Text(key).Put(static_cast<uint32_t>(type));
  }
  GgufBytes& Uint(const std::string& key, uint32_t value) {
    return Key(key, GgufValueType::kUint32).Put(value);
  }
  // `shape` innermost first, as stored.
  GgufBytes& Tensor(const std::string& name, const std::vector<uint64_t>& shape, uint32_t type,
                    uint64_t offset) {
    Text(name).Put(static_cast<uint32_t>(shape.size()));
    for (const uint64_t extent : shape) Put(extent);
    return Put(type).Put(offset);
  }
  GgufBytes& Align(size_t alignment = 32) {
    bytes_.resize((bytes_.size() + alignment - 1) / alignment * alignment);
    return *this;
  }
  GgufBytes& Zeros(size_t count) {
    bytes_.append(count, '\0');
    return *this;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

}  // namespace essor::model
