#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/float8.h"
#include "common/status_macros.h"
#include "model/checkpoint/checkpoint.h"
#include "model/checkpoint/quant_blocks.h"
#include "model/checkpoint/tensor_error.h"

namespace essor::model {
namespace {

using BlockDecoder = void (*)(const std::byte* block, float* out);

absl::Status CheckRange(const TensorView& tensor, uint64_t first, uint64_t count) {
  const DTypeInfo& info = InfoOf(tensor.dtype);
  const uint64_t elements = tensor.data.size() / info.block_bytes * info.block_elements;
  if (first <= elements && count <= elements - first) return absl::OkStatus();
  return absl::OutOfRangeError(absl::StrCat(tensor.file, ": tensor ", tensor.name, " has ",
                                            elements, " elements; ", count, " from ", first,
                                            " were asked for"));
}

absl::Status BadType(const TensorView& tensor, const char* wanted) {
  return absl::InvalidArgumentError(absl::StrCat(tensor.file, ": tensor ", tensor.name, " is ",
                                                 InfoOf(tensor.dtype).name, ", not ", wanted));
}

// A range that may begin and end inside a block.
template <uint32_t kElements, uint32_t kBytes>
void DecodeBlocks(const std::byte* data, uint64_t first, std::span<float> out,
                  BlockDecoder decode) {
  float whole[kElements];
  const std::byte* block = data + first / kElements * kBytes;
  size_t done = 0;
  if (const uint32_t skip = first % kElements; skip != 0) {
    decode(block, whole);
    done = std::min<size_t>(kElements - skip, out.size());
    std::copy_n(whole + skip, done, out.data());
    block += kBytes;
  }
  for (; out.size() - done >= kElements; done += kElements, block += kBytes) {
    decode(block, out.data() + done);
  }
  if (done < out.size()) {
    decode(block, whole);
    std::copy_n(whole, out.size() - done, out.data() + done);
  }
}

void DecodeBf16(const std::byte* data, std::span<float> out) {
  float* const to = out.data();
  for (size_t i = 0, n = out.size(); i < n; ++i) to[i] = ToFloat(BFloat16{LoadU16(data + 2 * i)});
}

void DecodeF16(const std::byte* data, std::span<float> out) {
  float* const to = out.data();
  for (size_t i = 0, n = out.size(); i < n; ++i) to[i] = HalfToFloat(LoadU16(data + 2 * i));
}

// Of the block that holds element `element`. Any block with a scale that is no number would spoil
// what it is multiplied with, or, in the head, be passed over without a word.
absl::Status CheckScale(const TensorView& tensor, uint64_t element, float scale) {
  if (std::isfinite(scale)) return absl::OkStatus();
  return TensorError(tensor,
                     absl::StrCat("the scale of the block at element ", element, " is ", scale));
}

// `out`, decoded from blocks: not finite where a scale was not.
absl::Status CheckDecoded(const TensorView& tensor, uint64_t first, std::span<const float> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    if (!std::isfinite(out[i])) return CheckScale(tensor, first + i, out[i]);
  }
  return absl::OkStatus();
}

absl::Status CheckQuantisedRange(const TensorView& tensor, uint64_t first, size_t values,
                                 size_t scales) {
  if (first % kBlockElements != 0 || values % kBlockElements != 0) {
    return absl::InvalidArgumentError(absl::StrCat(tensor.file, ": tensor ", tensor.name, ": ",
                                                   values, " elements from ", first,
                                                   " cut blocks of ", kBlockElements));
  }
  ESSOR_CHECK(scales == values / kBlockElements);
  return CheckRange(tensor, first, values);
}

}  // namespace

absl::Status DecodeToFloat(const TensorView& tensor, uint64_t first, std::span<float> out) {
  ESSOR_RETURN_IF_ERROR(CheckRange(tensor, first, out.size()));
  if (out.empty()) return absl::OkStatus();
  const std::byte* const data = tensor.data.data();
  switch (tensor.dtype) {
    case DType::kF32:
      std::memcpy(out.data(), data + 4 * first, out.size_bytes());
      return absl::OkStatus();
    case DType::kF16:
      DecodeF16(data + 2 * first, out);
      return absl::OkStatus();
    case DType::kBF16:
      DecodeBf16(data + 2 * first, out);
      return absl::OkStatus();
    case DType::kQ8_0:
      DecodeBlocks<32, 34>(data, first, out, DecodeQ8_0);
      return CheckDecoded(tensor, first, out);
    case DType::kQ4_0:
      DecodeBlocks<32, 18>(data, first, out, DecodeQ4_0);
      return CheckDecoded(tensor, first, out);
    case DType::kQ4_1:
      DecodeBlocks<32, 20>(data, first, out, DecodeQ4_1);
      return CheckDecoded(tensor, first, out);
    case DType::kQ4_K:
      DecodeBlocks<256, 144>(data, first, out, DecodeQ4_K);
      return CheckDecoded(tensor, first, out);
    case DType::kQ6_K:
      DecodeBlocks<256, 210>(data, first, out, DecodeQ6_K);
      return CheckDecoded(tensor, first, out);
    case DType::kF8E8M0:
      for (size_t i = 0; i < out.size(); ++i) {
        out[i] = ToFloat(Float8E8M0{std::to_integer<uint8_t>(data[first + i])});
      }
      return absl::OkStatus();
    case DType::kF8E4M3:
    case DType::kF4E2M1:
    case DType::kOffsetI4:
      return BadType(tensor, "a type that can be read without the scales of another tensor");
    case DType::kI64:
    case DType::kI32:
    case DType::kU8:
      break;
  }
  return BadType(tensor, "a type of real numbers");
}

absl::Status ReadQ8(const TensorView& tensor, uint64_t first, Q8Rows out) {
  if (tensor.dtype != DType::kQ8_0) return BadType(tensor, "q8_0");
  ESSOR_RETURN_IF_ERROR(CheckQuantisedRange(tensor, first, out.values.size(), out.scales.size()));
  const uint32_t block_bytes = InfoOf(DType::kQ8_0).block_bytes;
  const std::byte* block = tensor.data.data() + first / kBlockElements * block_bytes;
  for (size_t i = 0; i < out.scales.size(); ++i, block += block_bytes) {
    out.scales[i] = LoadU16(block);
    ESSOR_RETURN_IF_ERROR(
        CheckScale(tensor, first + i * kBlockElements, HalfToFloat(out.scales[i])));
    std::memcpy(out.values.data() + i * kBlockElements, block + 2, kBlockElements);
  }
  return absl::OkStatus();
}

absl::Status ReadQ4(const TensorView& tensor, uint64_t first, Q4Rows out) {
  const DType dtype = tensor.dtype;
  if (dtype != DType::kQ4_0 && dtype != DType::kQ4_1 && dtype != DType::kQ4_K) {
    return BadType(tensor, "q4_0, q4_1 or q4_k");
  }
  ESSOR_RETURN_IF_ERROR(CheckQuantisedRange(tensor, first, out.values.size(), out.scales.size()));
  ESSOR_CHECK(out.minima.size() == out.scales.size());
  const DTypeInfo& info = InfoOf(dtype);
  const uint32_t blocks_each = info.block_elements / kBlockElements;
  for (size_t i = 0; i < out.scales.size(); ++i) {
    const uint64_t index = first / kBlockElements + i;
    const std::byte* const block = tensor.data.data() + index / blocks_each * info.block_bytes;
    uint8_t* const values = out.values.data() + i * kBlockElements;
    if (dtype == DType::kQ4_K) {
      Q4KSubBlock sub_block;
      ReadQ4KSubBlock(block, index % blocks_each, sub_block);
      std::memcpy(values, sub_block.q, kBlockElements);
      out.scales[i] = sub_block.scale;
      out.minima[i] = sub_block.minimum;
      ESSOR_RETURN_IF_ERROR(
          CheckScale(tensor, first + i * kBlockElements, out.scales[i] + out.minima[i]));
      continue;
    }
    out.scales[i] = LoadHalf(block);
    out.minima[i] = dtype == DType::kQ4_1 ? LoadHalf(block + 2) : -8.0f * out.scales[i];
    ESSOR_RETURN_IF_ERROR(
        CheckScale(tensor, first + i * kBlockElements, out.scales[i] + out.minima[i]));
    UnpackNibbles(block + (dtype == DType::kQ4_1 ? 4 : 2), values);
  }
  return absl::OkStatus();
}

}  // namespace essor::model
