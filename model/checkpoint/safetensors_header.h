// The header of one safetensors file (https://github.com/huggingface/safetensors, "Format"): 8
// bytes little-endian length, JSON, then the tensors' bytes without gaps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/checkpoint/tensor_table.h"

namespace essor::model {

// The reference implementation's limit, too.
inline constexpr uint64_t kSafetensorsHeaderBytesMax = 100'000'000;

// Pure. The views point into `bytes`; `path` is for messages only. InvalidArgument naming path and
// tensor for anything that contradicts itself or the file's size.
absl::StatusOr<std::vector<TensorEntry>> ParseSafetensors(std::span<const std::byte> bytes,
                                                          const std::string& path);

// The format's word for a type: "BF16". Only plain types have one; "" for the others.
std::string SafetensorsTypeName(DType dtype);

}  // namespace essor::model
