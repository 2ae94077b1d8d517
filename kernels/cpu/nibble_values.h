// What the codes of kFp4 and kInt4 are worth, as bfloat16, which holds all of them exactly.
// Included by files compiled for instruction sets that the machine may not have, see
// linear_kernels.h.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "common/float4.h"
#include "kernels/packed_matrix.h"

namespace essor::kernels {

static inline constexpr float NibbleValue(WeightFormat format, uint32_t code) {
  const auto bits = static_cast<uint8_t>(code);
  return format == WeightFormat::kFp4 ? ToFloat(Float4E2M1{bits}) : ToFloat(OffsetInt4{bits});
}

// Bits of the 16 codes' values.
using NibbleTable = std::array<uint16_t, 16>;

static inline constexpr NibbleTable MakeNibbleTable(WeightFormat format) {
  NibbleTable table{};
  for (uint32_t code = 0; code < 16; ++code) {
    table[code] = static_cast<uint16_t>(std::bit_cast<uint32_t>(NibbleValue(format, code)) >> 16);
  }
  return table;
}

}  // namespace essor::kernels
