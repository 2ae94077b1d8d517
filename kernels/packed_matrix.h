// Weight matrices in the order the fast kernels read them. A weight is packed once at load time;
// the same packed bytes serve one token and many.
//
// Dims: N = output rows, K = input columns; y[t, n] = sum_k x[t, k] * w[n, k].
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace essor::kernels {

// How the values are held.
enum class WeightFormat {
  kF32,   // float32, products and sums in float32
  kBF16,  // bfloat16 weights; x is rounded to bfloat16; products summed in float32
  kQ8,    // int8 with one f16 scale per 32 columns; x is quantised to int8 per 32 columns
  kQ4,    // 4 bit with f16 scale and minimum per 32 columns; x likewise
  // e4m3 with one float32 scale per row and block of 128 columns. x as with kBF16 (which holds
  // every e4m3 value exactly): the format's own activation scheme, e4m3 per 128 columns, would add
  // an error of 2^-4 that no reference has. Products of a block are summed in float32, then scaled.
  kFp8,
  // Four bits and one bfloat16 scale per row and 32 columns, x as with kBF16: e2m1 floats (MXFP4,
  // whose scales are powers of two) or whole numbers from -8 to 7. Products of 32 columns are
  // summed in float32, then scaled.
  kFp4,
  kInt4,
};

// kFp4 or kInt4, which differ in the values of their 16 codes only.
constexpr bool IsNibbles(WeightFormat format) {
  return format == WeightFormat::kFp4 || format == WeightFormat::kInt4;
}

// Formats whose products round their inputs to bfloat16.
constexpr bool TakesBFloat16(WeightFormat format) {
  return format == WeightFormat::kBF16 || format == WeightFormat::kFp8 || IsNibbles(format);
}

// Non-owning view of a packed [N, K] matrix. Trivially copyable.
struct PackedMatrix {
  WeightFormat format = WeightFormat::kF32;
  uint32_t n = 0;
  uint32_t k = 0;                   // a multiple of 32 for kQ8, kQ4, kFp4 and kInt4
  uint32_t block_offset = 0;        // kFp8: see Fp8Rows
  const std::byte* data = nullptr;  // 64-byte aligned, PackedMatrixBytes() long
};

// Bytes of a packed matrix: N is padded to the tile width, K to the format's granule.
size_t PackedMatrixBytes(WeightFormat format, uint32_t n, uint32_t k, uint32_t block_offset = 0);

// Write `num_rows` rows beginning at row `first_row` of the packed matrix at `destination` (laid
// out for [n, k]). Different rows may be packed from different threads as long as no two calls
// touch the same group of kPackRowGroup rows. Padding rows are zeroed by the call that writes the
// last row of their group.
inline constexpr uint32_t kPackRowGroup = 64;

struct PackTarget {
  std::byte* destination;
  uint32_t n;
  uint32_t k;
  uint32_t first_row;         // a multiple of kPackRowGroup
  uint32_t num_rows;          // a multiple of kPackRowGroup, or up to n
  uint32_t block_offset = 0;  // kFp8: see Fp8Rows
};
// Row i of the source begins at element i * row_stride.
void PackF32(std::span<const float> rows, size_t row_stride, const PackTarget& target);
void PackBF16(std::span<const uint16_t> rows, size_t row_stride, const PackTarget& target);
// The same from a source that holds the transpose: element (row i, column c) of the rows to be
// packed is element c * column_stride + i. PackBF16Columns takes little-endian values of any
// alignment.
void PackF32Columns(std::span<const float> columns, size_t column_stride, const PackTarget& target);
void PackBF16Columns(std::span<const std::byte> columns, size_t column_stride,
                     const PackTarget& target);
// values[i * row_stride + c], scales[(i * row_stride + c) / 32].
struct QuantRows {
  std::span<const int8_t> values;    // kQ8: -127..127 (-128 allowed); kQ4: 0..15
  std::span<const uint16_t> scales;  // f16 bits
  std::span<const uint16_t> minima;  // kQ4 only; w = scale * value + minimum
};
void PackQ8(const QuantRows& rows, size_t row_stride, const PackTarget& target);
void PackQ4(const QuantRows& rows, size_t row_stride, const PackTarget& target);
// The columns of a slice need not begin at a block of the whole matrix: column c lies in block
// (block_offset + c) / 128, with block_offset = the slice's first column mod 128. Every row has
// scales of its own, so that rows may begin anywhere, too.
inline constexpr uint32_t kFp8BlockColumns = 128;
struct Fp8Rows {
  std::span<const uint8_t> codes;  // [i * row_stride + c]; a NaN code makes its products NaN
  std::span<const float> scales;   // [i * scale_stride + block]
  size_t scale_stride;
};
void PackFp8(const Fp8Rows& rows, size_t row_stride, const PackTarget& target);
// Codes (common/float4.h) two a byte, column 2 i in the low and 2 i + 1 in the high half of byte i.
// Row strides are multiples of 32.
struct NibbleRows {
  std::span<const uint8_t> codes;    // [(i * row_stride + c) / 2]
  std::span<const uint16_t> scales;  // bfloat16 bits [(i * row_stride + c) / 32]
};
void PackNibbles(WeightFormat format, const NibbleRows& rows, size_t row_stride,
                 const PackTarget& target);

// Row `row` as float32 (embedding look-up of tied matrices, tests). `out` has k elements.
void UnpackRow(const PackedMatrix& matrix, uint32_t row, std::span<float> out);

}  // namespace essor::kernels
