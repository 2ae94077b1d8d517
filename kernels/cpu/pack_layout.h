// The bytes of a packed matrix, as the writers (pack.cc) and the kernels agree on them.
//
// A matrix is a sequence of tiles of kTileRows output rows, each contiguous, so that a thread that
// owns a tile streams it. Inside a tile the columns go by in order, in steps whose values are one
// 32-bit word per output row, which one broadcast word of x multiplies:
//
//   kF32   step = 1 column:   [K][32] float
//   kBF16  step = 2 columns:  [ceil(K/2)][32][2] bf16, an odd last column paired with zero
//   kQ8    block = 32 columns: [8][32][4] uint8 (value + 128), then [32] f16 scales
//   kQ4    block = 32 columns: [4][32][4] bytes, low nibble = column 4 g + c, high nibble =
//          column 16 + 4 g + c, then [32] f16 scales, then [32] f16 minima
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/packed_matrix.h"

namespace essor::kernels {

inline constexpr uint32_t kTileRows = 32;
inline constexpr uint32_t kQuantBlock = 32;  // columns that share a scale
inline constexpr size_t kQ8ValueBytes = kTileRows * kQuantBlock;
inline constexpr size_t kQ4ValueBytes = kTileRows * kQuantBlock / 2;
inline constexpr size_t kScaleRowBytes = kTileRows * sizeof(uint16_t);
inline constexpr size_t kQ8BlockBytes = kQ8ValueBytes + kScaleRowBytes;
inline constexpr size_t kQ4BlockBytes = kQ4ValueBytes + 2 * kScaleRowBytes;

static inline constexpr uint32_t NumTiles(uint32_t n) { return (n + kTileRows - 1) / kTileRows; }

static inline constexpr size_t TileBytes(WeightFormat format, uint32_t k) {
  const size_t columns = k;
  switch (format) {
    case WeightFormat::kF32:
      return columns * kTileRows * sizeof(float);
    case WeightFormat::kBF16:
      return (columns + 1) / 2 * kTileRows * sizeof(uint32_t);
    case WeightFormat::kQ8:
      return columns / kQuantBlock * kQ8BlockBytes;
    case WeightFormat::kQ4:
      return columns / kQuantBlock * kQ4BlockBytes;
  }
  return 0;
}

static inline const std::byte* TileOf(const PackedMatrix& matrix, uint32_t tile) {
  return matrix.data + tile * TileBytes(matrix.format, matrix.k);
}

}  // namespace essor::kernels
