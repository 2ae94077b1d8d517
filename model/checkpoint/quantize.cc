#include "model/checkpoint/quantize.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/float16.h"
#include "common/status_macros.h"
#include "model/checkpoint/quant_blocks.h"

namespace essor::model {
namespace {

constexpr float kHalfMax = 65504.0f;

absl::Status EncodeQ8Block(const float* values, std::byte* out) {
  // Magnitudes order as their bits do, and integers vectorise where a float maximum does not.
  int32_t largest_bits = 0;
  for (uint32_t i = 0; i < kBlockElements; ++i) {
    largest_bits = std::max(largest_bits, std::bit_cast<int32_t>(values[i]) & 0x7fffffff);
  }
  const float scale = std::bit_cast<float>(largest_bits) / 127.0f;
  if (!(scale <= kHalfMax)) {  // NaN, too
    return absl::InvalidArgumentError(
        absl::StrCat("q8_0 cannot hold values that are not finite or above ", kHalfMax, " * 127"));
  }
  // A scale so small that its inverse overflows is far below half's smallest subnormal: zeros.
  float inverse = scale == 0.0f ? 0.0f : 1.0f / scale;
  if (std::isinf(inverse)) inverse = 0.0f;
  const uint16_t half = ToFloat16(scale).bits;
  std::memcpy(out, &half, sizeof(half));
  int8_t quantised[kBlockElements];
  for (uint32_t i = 0; i < kBlockElements; ++i) {
    const float scaled = values[i] * inverse;
    // To nearest, ties away from zero. The fraction is exact, so this is roundf, but vectorises.
    const auto whole = static_cast<int32_t>(scaled);
    const float fraction = scaled - static_cast<float>(whole);
    quantised[i] = static_cast<int8_t>(whole + (fraction >= 0.5f) - (fraction <= -0.5f));
  }
  std::memcpy(out + sizeof(half), quantised, sizeof(quantised));
  return absl::OkStatus();
}

}  // namespace

absl::Status EncodeFromFloat(DType dtype, std::span<const float> values, std::span<std::byte> out) {
  const DTypeInfo& info = InfoOf(dtype);
  ESSOR_CHECK(values.size() % info.block_elements == 0);
  ESSOR_CHECK(out.size() == StorageBytes(dtype, values.size()));
  switch (dtype) {
    case DType::kF32:
      if (!values.empty()) std::memcpy(out.data(), values.data(), out.size());
      return absl::OkStatus();
    case DType::kBF16:
      for (size_t i = 0; i < values.size(); ++i) {
        const uint16_t bits = ToBFloat16(values[i]).bits;
        std::memcpy(out.data() + 2 * i, &bits, sizeof(bits));
      }
      return absl::OkStatus();
    case DType::kQ8_0:
      for (size_t i = 0; i < values.size(); i += kBlockElements) {
        ESSOR_RETURN_IF_ERROR(
            EncodeQ8Block(values.data() + i, out.data() + i / kBlockElements * info.block_bytes));
      }
      return absl::OkStatus();
    default:
      ESSOR_CHECK(false && "only f32, bf16 and q8_0 are written");
  }
}

}  // namespace essor::model
