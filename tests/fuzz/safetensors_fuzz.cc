// Any bytes as a safetensors file: a clean error, or views that lie inside the file.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "common/check.h"
#include "model/checkpoint/safetensors_header.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using essor::model::TensorEntry;
  // The length of the header in front is hard to guess: inputs with JSON behind it get one that
  // fits, and their seventh byte chooses how much data follows.
  std::string file(reinterpret_cast<const char*>(data), size);
  if (size > 8 && data[8] == '{') {
    const uint64_t header = size - 8 - std::min<uint64_t>(size - 8, data[6] % 64);
    for (size_t i = 0; i < 8; ++i) file[i] = static_cast<char>(header >> (8 * i));
  }
  const auto bytes = std::as_bytes(std::span(file));
  const auto entries = essor::model::ParseSafetensors(bytes, "fuzz");
  if (!entries.ok()) {
    ESSOR_CHECK(absl::IsInvalidArgument(entries.status()));
    return 0;
  }
  for (const TensorEntry& entry : *entries) {
    ESSOR_CHECK(entry.view.data.empty() ||
                (entry.view.data.data() >= bytes.data() &&
                 entry.view.data.data() + entry.view.data.size() <= bytes.data() + bytes.size()));
  }
  return 0;
}
