// float32 to the storage types that Essor writes.
#pragma once

#include <cstddef>
#include <span>

#include "absl/status/status.h"
#include "common/dtype.h"

namespace essor::model {

// Encodes `values` as kF32, kBF16 or kQ8_0 into `out`, which has StorageBytes(dtype, size) bytes;
// for kQ8_0 the count is a multiple of 32 (both ESSOR_CHECK).
// bf16: to nearest, ties to even. Q8_0 as ggml's reference: scale = max |x| / 127 kept as half
// precision, values x / scale to nearest, ties away from zero, with the scale before its rounding.
// InvalidArgument for values that Q8_0 cannot hold (not finite, or too large for a half scale).
absl::Status EncodeFromFloat(DType dtype, std::span<const float> values, std::span<std::byte> out);

}  // namespace essor::model
