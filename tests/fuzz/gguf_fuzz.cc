// Any bytes as a GGUF file: a clean error, or tensors that lie inside the file and decode.
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "common/check.h"
#include "model/checkpoint/gguf_format.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using essor::model::TensorEntry;
  const auto bytes = std::as_bytes(std::span(data, size));
  const auto contents = essor::model::ParseGguf(bytes, "fuzz");
  if (!contents.ok()) {
    ESSOR_CHECK(absl::IsInvalidArgument(contents.status()));
    return 0;
  }
  for (const TensorEntry& entry : contents->tensors) {
    const auto& view = entry.view;
    ESSOR_CHECK(view.data.empty() ||
                (view.data.data() >= bytes.data() &&
                 view.data.data() + view.data.size() <= bytes.data() + bytes.size()));
    if (!entry.supported) continue;
    const essor::DTypeInfo& info = essor::InfoOf(view.dtype);
    // Bounded by the size of the input.
    std::vector<float> values(view.data.size() / info.block_bytes * info.block_elements);
    const absl::Status status = essor::model::DecodeToFloat(view, 0, values);
    ESSOR_CHECK(status.ok() || absl::IsInvalidArgument(status));
  }
  return 0;
}
