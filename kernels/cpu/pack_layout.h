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
//   kFp8   block = the columns that share a scale, 128 or at either end of the matrix fewer:
//          [words][32][4] e4m3, word w = columns 4 w .. 4 w + 3 of the matrix in the order 0 2 1 3
//          (so that even and odd bytes are pairs as kBF16 has them), then [32] float scales. Where
//          a block begins or ends inside a word, it has that word with zeros for the columns that
//          are not its own.
//   kFp4   block = 32 columns: [4][32] words, word g = columns 8 g .. 8 g + 7 in nibbles, from the
//   kInt4  lowest 0 2 4 6 1 3 5 7 (so that nibble i of both halves is a pair as kBF16 has them),
//          then [32] bf16 scales
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

inline constexpr uint32_t kNibbleWordColumns = 8;
inline constexpr size_t kNibbleBlockBytes = kQ4ValueBytes + kScaleRowBytes;

inline constexpr uint32_t kFp8WordColumns = 4;

// Columns [begin, end) of a kFp8 matrix that share a scale, and its words from first_word on.
struct Fp8Block {
  uint32_t begin;
  uint32_t end;
  uint32_t first_word;
  uint32_t num_words;
};

static inline constexpr Fp8Block MakeFp8Block(uint32_t begin, uint32_t end) {
  const uint32_t first = begin / kFp8WordColumns;
  return {begin, end, first, (end + kFp8WordColumns - 1) / kFp8WordColumns - first};
}

// The blocks of a matrix of k columns: for (b = FirstFp8Block(k, offset); b.begin < k;
// b = NextFp8Block(b, k)).
static inline constexpr Fp8Block FirstFp8Block(uint32_t k, uint32_t block_offset) {
  const uint32_t end = kFp8BlockColumns - block_offset;
  return MakeFp8Block(0, end < k ? end : k);
}
static inline constexpr Fp8Block NextFp8Block(const Fp8Block& block, uint32_t k) {
  const uint32_t end = k - block.end < kFp8BlockColumns ? k : block.end + kFp8BlockColumns;
  return MakeFp8Block(block.end, end);
}

static inline constexpr size_t Fp8BlockBytes(const Fp8Block& block) {
  return size_t{kTileRows} * (kFp8WordColumns * block.num_words + sizeof(float));
}

// Of all blocks; a boundary inside a word counts that word twice.
static inline constexpr size_t Fp8TileBytes(size_t k, size_t block_offset) {
  if (k == 0) return 0;
  const size_t blocks = (block_offset + k + kFp8BlockColumns - 1) / kFp8BlockColumns;
  const size_t shared = block_offset % kFp8WordColumns == 0 ? 0 : blocks - 1;
  const size_t words = (k + kFp8WordColumns - 1) / kFp8WordColumns + shared;
  return kTileRows * (kFp8WordColumns * words + sizeof(float) * blocks);
}

static inline constexpr uint32_t NumTiles(uint32_t n) { return (n + kTileRows - 1) / kTileRows; }

static inline constexpr size_t TileBytes(WeightFormat format, uint32_t k,
                                         uint32_t block_offset = 0) {
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
    case WeightFormat::kFp8:
      return Fp8TileBytes(columns, block_offset);
    case WeightFormat::kFp4:
    case WeightFormat::kInt4:
      return columns / kQuantBlock * kNibbleBlockBytes;
  }
  return 0;
}

static inline size_t TileBytes(const PackedMatrix& matrix) {
  return TileBytes(matrix.format, matrix.k, matrix.block_offset);
}

static inline const std::byte* TileOf(const PackedMatrix& matrix, uint32_t tile) {
  return matrix.data + tile * TileBytes(matrix);
}

}  // namespace essor::kernels
