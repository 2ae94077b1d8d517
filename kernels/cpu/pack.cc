// Packing at load time: every format is a transposition of 32-bit words (a float, two bf16, four
// quantised values) from rows to the word-interleaved tiles of pack_layout.h.
#include <algorithm>
#include <cstring>
#include <vector>

#include "common/check.h"
#include "common/float16.h"
#include "common/float8.h"
#include "kernels/cpu/nibble_values.h"
#include "kernels/cpu/pack_layout.h"
#include "kernels/packed_matrix.h"

namespace essor::kernels {
namespace {

// Four 32-bit words, in whatever vector instructions the build's processor has.
using Words4 = uint32_t __attribute__((vector_size(16)));

// Up to 16 bytes, the rest zero.
Words4 LoadWords(const void* from, size_t bytes) {
  Words4 words = {};
  if (bytes >= sizeof(words)) {
    std::memcpy(&words, from, sizeof(words));
  } else {
    std::memcpy(&words, from, bytes);
  }
  return words;
}

// Word i of row j becomes word j of row i.
void Transpose(Words4 (&rows)[4]) {
  const Words4 a = __builtin_shufflevector(rows[0], rows[1], 0, 4, 1, 5);
  const Words4 b = __builtin_shufflevector(rows[2], rows[3], 0, 4, 1, 5);
  const Words4 c = __builtin_shufflevector(rows[0], rows[1], 2, 6, 3, 7);
  const Words4 d = __builtin_shufflevector(rows[2], rows[3], 2, 6, 3, 7);
  rows[0] = __builtin_shufflevector(a, b, 0, 1, 4, 5);
  rows[1] = __builtin_shufflevector(a, b, 2, 3, 6, 7);
  rows[2] = __builtin_shufflevector(c, d, 0, 1, 4, 5);
  rows[3] = __builtin_shufflevector(c, d, 2, 3, 6, 7);
}

// Words of a row that are read at once: a cache line.
constexpr uint32_t kStripWords = 16;

// Whether the caller kept the contract of PackTarget.
void CheckRowGroups(const PackTarget& target) {
  ESSOR_CHECK(target.first_row % kPackRowGroup == 0);
  ESSOR_CHECK(target.first_row + target.num_rows <= target.n);
  ESSOR_CHECK(target.num_rows % kPackRowGroup == 0 ||
              target.first_row + target.num_rows == target.n);
}

// And whether the source holds all its rows.
void CheckTarget(const PackTarget& target, size_t source_elements, size_t row_stride) {
  CheckRowGroups(target);
  ESSOR_CHECK(target.num_rows == 0 ||
              (target.num_rows - 1) * row_stride + target.k <= source_elements);
}

// Or all its columns.
void CheckColumns(const PackTarget& target, size_t source_elements, size_t column_stride) {
  CheckRowGroups(target);
  ESSOR_CHECK(target.k == 0 || (target.k - 1) * column_stride + target.num_rows <= source_elements);
}

// words(row, word) are four words of a source row, a multiple of four from its start; word w of the
// 32 rows of a tile goes to address(tile, w). Rows past the end are zero words.
template <typename Words, typename Address>
void TransposeWords(const PackTarget& target, uint32_t num_words, const Words& words,
                    const Address& address) {
  for (uint32_t first = 0; first < target.num_rows; first += kTileRows) {
    const uint32_t tile = (target.first_row + first) / kTileRows;
    const uint32_t rows = std::min(kTileRows, target.num_rows - first);
    for (uint32_t strip = 0; strip < num_words; strip += kStripWords) {
      const uint32_t end = std::min(strip + kStripWords, num_words);
      for (uint32_t r = 0; r < kTileRows; r += 4) {
        for (uint32_t w = strip; w < end; w += 4) {
          Words4 square[4] = {};
          for (uint32_t i = 0; i < 4 && r + i < rows; ++i) square[i] = words(first + r + i, w);
          Transpose(square);
          for (uint32_t i = 0; i < 4 && w + i < end; ++i) {
            std::memcpy(target.destination + address(tile, w + i) + 4 * r, &square[i],
                        sizeof(square[i]));
          }
        }
      }
    }
  }
}

// 16 bits per row and block, written at `offset` in each block of the tile; padding rows get zero.
void PackScales(const PackTarget& target, WeightFormat format, std::span<const uint16_t> scales,
                size_t row_stride, size_t block_bytes, size_t offset) {
  const uint32_t num_blocks = target.k / kQuantBlock;
  for (uint32_t first = 0; first < target.num_rows; first += kTileRows) {
    std::byte* tile =
        target.destination + (target.first_row + first) / kTileRows * TileBytes(format, target.k);
    const uint32_t rows = std::min(kTileRows, target.num_rows - first);
    for (uint32_t block = 0; block < num_blocks; ++block) {
      uint16_t line[kTileRows] = {};
      for (uint32_t r = 0; r < rows; ++r) {
        line[r] = scales[(first + r) * row_stride / kQuantBlock + block];
      }
      std::memcpy(tile + block * block_bytes + offset, line, sizeof(line));
    }
  }
}

void CheckQuantRows(const QuantRows& rows, size_t row_stride, const PackTarget& target) {
  ESSOR_CHECK(target.k % kQuantBlock == 0 && row_stride % kQuantBlock == 0);
  CheckTarget(target, rows.values.size(), row_stride);
  CheckTarget(target, rows.scales.size() * kQuantBlock, row_stride);
}

}  // namespace

size_t PackedMatrixBytes(WeightFormat format, uint32_t n, uint32_t k, uint32_t block_offset) {
  const bool in_blocks =
      format == WeightFormat::kQ8 || format == WeightFormat::kQ4 || IsNibbles(format);
  ESSOR_CHECK(!in_blocks || k % kQuantBlock == 0);
  ESSOR_CHECK(block_offset < kFp8BlockColumns);
  return NumTiles(n) * TileBytes(format, k, block_offset);
}

void PackF32(std::span<const float> rows, size_t row_stride, const PackTarget& target) {
  CheckTarget(target, rows.size(), row_stride);
  const size_t tile_bytes = TileBytes(WeightFormat::kF32, target.k);
  TransposeWords(
      target, target.k,
      [&](uint32_t row, uint32_t word) {
        return LoadWords(rows.data() + row * row_stride + word, (target.k - word) * sizeof(float));
      },
      [&](uint32_t tile, uint32_t word) {
        return tile * tile_bytes + size_t{word} * kTileRows * 4;
      });
}

void PackBF16(std::span<const uint16_t> rows, size_t row_stride, const PackTarget& target) {
  CheckTarget(target, rows.size(), row_stride);
  const size_t tile_bytes = TileBytes(WeightFormat::kBF16, target.k);
  TransposeWords(
      target, (target.k + 1) / 2,
      [&](uint32_t row, uint32_t word) {
        const size_t column = 2 * size_t{word};
        return LoadWords(rows.data() + row * row_stride + column,
                         (target.k - column) * sizeof(uint16_t));
      },
      [&](uint32_t tile, uint32_t word) {
        return tile * tile_bytes + size_t{word} * kTileRows * 4;
      });
}

namespace {

// Columns are taken in strips of 64, 512 rows at a time: pieces of the source long enough to be
// worth a page's visit, and a copy of them from which tiles can be written in their order. The
// copy's stride spreads its columns over the cache.
constexpr uint32_t kStripColumns = 64;
constexpr uint32_t kStripRows = 512;
constexpr uint32_t kStripStride = kStripRows + kTileRows;

// Calls write(tile, column, count, strip): columns [column, column + count) of the tile that begins
// `tile` bytes behind the destination are strip[c * kStripStride + row].
template <typename T, typename Write>
void ForEachStrip(std::span<const std::byte> columns, size_t column_stride,
                  const PackTarget& target, size_t tile_bytes, const Write& write) {
  CheckColumns(target, columns.size() / sizeof(T), column_stride);
  std::vector<T> strip(kStripColumns * kStripStride);
  for (uint32_t first = 0; first < target.num_rows; first += kStripRows) {
    const uint32_t rows = std::min(kStripRows, target.num_rows - first);
    const uint32_t padded = (rows + kTileRows - 1) / kTileRows * kTileRows;
    for (uint32_t column = 0; column < target.k; column += kStripColumns) {
      const uint32_t count = std::min(kStripColumns, target.k - column);
      for (uint32_t c = 0; c < count; ++c) {
        T* const to = strip.data() + size_t{c} * kStripStride;
        const size_t from = (size_t{column} + c) * column_stride + first;
        std::memcpy(to, columns.data() + from * sizeof(T), rows * sizeof(T));
        std::fill(to + rows, to + padded, T{0});
      }
      for (uint32_t row = 0; row < rows; row += kTileRows) {
        const size_t tile = (target.first_row + first + row) / kTileRows * tile_bytes;
        write(tile, size_t{column}, count, strip.data() + row);
      }
    }
  }
}

}  // namespace

void PackF32Columns(std::span<const float> columns, size_t column_stride,
                    const PackTarget& target) {
  const auto write = [&](size_t tile, size_t column, uint32_t count, const float* strip) {
    for (uint32_t c = 0; c < count; ++c) {
      constexpr size_t kLine = kTileRows * sizeof(float);
      std::memcpy(target.destination + tile + (column + c) * kLine, strip + c * kStripStride,
                  kLine);
    }
  };
  ForEachStrip<float>(std::as_bytes(columns), column_stride, target,
                      TileBytes(WeightFormat::kF32, target.k), write);
}

void PackBF16Columns(std::span<const std::byte> columns, size_t column_stride,
                     const PackTarget& target) {
  constexpr uint16_t kZeros[kTileRows] = {};
  const auto write = [&](size_t tile, size_t column, uint32_t count, const uint16_t* strip) {
    for (uint32_t c = 0; c < count; c += 2) {
      const uint16_t* const low = strip + c * kStripStride;
      const uint16_t* const high = c + 1 < count ? low + kStripStride : kZeros;
      uint32_t words[kTileRows];
      for (uint32_t i = 0; i < kTileRows; ++i) words[i] = low[i] | uint32_t{high[i]} << 16;
      std::memcpy(target.destination + tile + (column + c) / 2 * sizeof(words), words,
                  sizeof(words));
    }
  };
  ForEachStrip<uint16_t>(columns, column_stride, target, TileBytes(WeightFormat::kBF16, target.k),
                         write);
}

void PackQ8(const QuantRows& rows, size_t row_stride, const PackTarget& target) {
  CheckQuantRows(rows, row_stride, target);
  const size_t tile_bytes = TileBytes(WeightFormat::kQ8, target.k);
  constexpr uint32_t kWordsPerBlock = kQuantBlock / 4;
  TransposeWords(
      target, target.k / 4,
      [&](uint32_t row, uint32_t word) {
        return LoadWords(rows.values.data() + row * row_stride + 4 * size_t{word}, 16) ^
               0x80808080u;
      },
      [&](uint32_t tile, uint32_t word) {
        return tile * tile_bytes + word / kWordsPerBlock * kQ8BlockBytes +
               word % kWordsPerBlock * size_t{kTileRows} * 4;
      });
  PackScales(target, WeightFormat::kQ8, rows.scales, row_stride, kQ8BlockBytes, kQ8ValueBytes);
}

void PackQ4(const QuantRows& rows, size_t row_stride, const PackTarget& target) {
  CheckQuantRows(rows, row_stride, target);
  CheckTarget(target, rows.minima.size() * kQuantBlock, row_stride);
  const size_t tile_bytes = TileBytes(WeightFormat::kQ4, target.k);
  constexpr uint32_t kWordsPerBlock = kQuantBlock / 8;
  TransposeWords(
      target, target.k / 8,
      [&](uint32_t row, uint32_t word) {
        // Four words are a block: its first 16 columns and its last 16.
        const int8_t* block =
            rows.values.data() + row * row_stride + word / kWordsPerBlock * size_t{kQuantBlock};
        return (LoadWords(block, 16) & 0x0f0f0f0fu) | (LoadWords(block + 16, 16) & 0x0f0f0f0fu)
                                                          << 4;
      },
      [&](uint32_t tile, uint32_t word) {
        return tile * tile_bytes + word / kWordsPerBlock * kQ4BlockBytes +
               word % kWordsPerBlock * size_t{kTileRows} * 4;
      });
  PackScales(target, WeightFormat::kQ4, rows.scales, row_stride, kQ4BlockBytes, kQ4ValueBytes);
  PackScales(target, WeightFormat::kQ4, rows.minima, row_stride, kQ4BlockBytes,
             kQ4ValueBytes + kScaleRowBytes);
}

namespace {

// Columns 0 2 1 3 of each word, from columns 0 1 2 3.
Words4 Fp8Order(Words4 words) {
  return (words & 0xff0000ffu) | ((words & 0x0000ff00u) << 8) | ((words & 0x00ff0000u) >> 8);
}

// One block of all rows; it lies `offset` bytes into each tile.
void PackFp8Block(const Fp8Rows& rows, size_t row_stride, const PackTarget& target,
                  const Fp8Block& block, size_t offset) {
  const size_t tile_bytes = TileBytes(WeightFormat::kFp8, target.k, target.block_offset);
  const uint32_t before = block.begin % kFp8WordColumns;  // columns of the word that are not ours
  TransposeWords(
      target, block.num_words,
      [&](uint32_t row, uint32_t word) {
        const size_t column = size_t{block.first_word + word} * kFp8WordColumns;
        Words4 words = LoadWords(rows.codes.data() + row * row_stride + column, block.end - column);
        if (word == 0) words[0] &= ~0u << (8 * before);
        return Fp8Order(words);
      },
      [&](uint32_t tile, uint32_t word) {
        return tile * tile_bytes + offset + size_t{word} * kTileRows * kFp8WordColumns;
      });
  const uint32_t index = (target.block_offset + block.begin) / kFp8BlockColumns;
  const size_t scales_at = offset + size_t{block.num_words} * kTileRows * kFp8WordColumns;
  for (uint32_t first = 0; first < target.num_rows; first += kTileRows) {
    float line[kTileRows] = {};
    for (uint32_t r = 0; r < std::min(kTileRows, target.num_rows - first); ++r) {
      line[r] = rows.scales[(first + r) * rows.scale_stride + index];
    }
    const size_t tile = (target.first_row + first) / kTileRows;
    std::memcpy(target.destination + tile * tile_bytes + scales_at, line, sizeof(line));
  }
}

}  // namespace

void PackFp8(const Fp8Rows& rows, size_t row_stride, const PackTarget& target) {
  CheckTarget(target, rows.codes.size(), row_stride);
  ESSOR_CHECK(target.block_offset < kFp8BlockColumns);
  if (target.num_rows == 0 || target.k == 0) return;
  const uint32_t last_block = (target.block_offset + target.k - 1) / kFp8BlockColumns;
  ESSOR_CHECK((target.num_rows - 1) * rows.scale_stride + last_block < rows.scales.size());
  size_t offset = 0;
  for (Fp8Block block = FirstFp8Block(target.k, target.block_offset); block.begin < target.k;
       block = NextFp8Block(block, target.k)) {
    PackFp8Block(rows, row_stride, target, block, offset);
    offset += Fp8BlockBytes(block);
  }
}

namespace {

// Columns 0 2 4 6 of each word in its low half and 1 3 5 7 in its high one, from 0 .. 7.
Words4 NibbleOrder(Words4 words) {
  const auto every_other = [](Words4 w) {
    w &= 0x0f0f0f0fu;
    w = (w | w >> 4) & 0x00ff00ffu;
    return (w | w >> 8) & 0x0000ffffu;
  };
  return every_other(words) | every_other(words >> 4) << 16;
}

}  // namespace

void PackNibbles(WeightFormat format, const NibbleRows& rows, size_t row_stride,
                 const PackTarget& target) {
  ESSOR_CHECK(IsNibbles(format));
  ESSOR_CHECK(target.k % kQuantBlock == 0 && row_stride % kQuantBlock == 0);
  CheckTarget(target, rows.codes.size() * 2, row_stride);
  CheckTarget(target, rows.scales.size() * kQuantBlock, row_stride);
  const size_t tile_bytes = TileBytes(format, target.k);
  constexpr uint32_t kWordsPerBlock = kQuantBlock / kNibbleWordColumns;
  TransposeWords(
      target, target.k / kNibbleWordColumns,
      [&](uint32_t row, uint32_t word) {
        return NibbleOrder(
            LoadWords(rows.codes.data() + row * (row_stride / 2) + 4 * size_t{word}, 16));
      },
      [&](uint32_t tile, uint32_t word) {
        return tile * tile_bytes + word / kWordsPerBlock * kNibbleBlockBytes +
               word % kWordsPerBlock * size_t{kTileRows} * 4;
      });
  PackScales(target, format, rows.scales, row_stride, kNibbleBlockBytes, kQ4ValueBytes);
}

namespace {

float LoadHalf(const std::byte* from) {
  uint16_t bits;
  std::memcpy(&bits, from, sizeof(bits));
  return ToFloat(Float16{bits});
}

void UnpackQ8Block(const std::byte* block, uint32_t row, float* out) {
  const float scale = LoadHalf(block + kQ8ValueBytes + 2 * row);
  for (uint32_t c = 0; c < kQuantBlock; ++c) {
    const auto biased = static_cast<int>(block[(c / 4 * kTileRows + row) * 4 + c % 4]);
    out[c] = scale * static_cast<float>(biased - 128);
  }
}

void UnpackQ4Block(const std::byte* block, uint32_t row, float* out) {
  const float scale = LoadHalf(block + kQ4ValueBytes + 2 * row);
  const float minimum = LoadHalf(block + kQ4ValueBytes + kScaleRowBytes + 2 * row);
  constexpr uint32_t kHalf = kQuantBlock / 2;
  for (uint32_t c = 0; c < kQuantBlock; ++c) {
    const uint32_t place = c % kHalf;
    const auto byte = static_cast<uint32_t>(block[(place / 4 * kTileRows + row) * 4 + place % 4]);
    const uint32_t value = c < kHalf ? byte & 0x0fu : byte >> 4;
    out[c] = scale * static_cast<float>(value) + minimum;
  }
}

void UnpackNibbleBlock(WeightFormat format, const std::byte* block, uint32_t row, float* out) {
  BFloat16 scale;
  std::memcpy(&scale, block + kQ4ValueBytes + 2 * row, sizeof(scale));
  for (uint32_t c = 0; c < kQuantBlock; ++c) {
    const uint32_t place = c % kNibbleWordColumns;
    uint32_t word;
    std::memcpy(&word, block + (c / kNibbleWordColumns * kTileRows + row) * 4, sizeof(word));
    const uint32_t code = word >> (place % 2 * 16 + place / 2 * 4) & 0x0fu;
    out[c] = ToFloat(scale) * NibbleValue(format, code);
  }
}

void UnpackFp8Row(const PackedMatrix& matrix, const std::byte* at, uint32_t row, float* out) {
  constexpr uint32_t kPlace[kFp8WordColumns] = {0, 2, 1, 3};
  for (Fp8Block block = FirstFp8Block(matrix.k, matrix.block_offset); block.begin < matrix.k;
       block = NextFp8Block(block, matrix.k)) {
    float scale;
    std::memcpy(&scale, at + (size_t{block.num_words} * kTileRows + row) * 4, sizeof(scale));
    for (uint32_t c = block.begin; c < block.end; ++c) {
      const uint32_t word = c / kFp8WordColumns - block.first_word;
      const std::byte code = at[(word * kTileRows + row) * 4 + kPlace[c % kFp8WordColumns]];
      out[c] = scale * ToFloat(Float8E4M3{std::to_integer<uint8_t>(code)});
    }
    at += Fp8BlockBytes(block);
  }
}

}  // namespace

void UnpackRow(const PackedMatrix& matrix, uint32_t row, std::span<float> out) {
  ESSOR_CHECK(row < matrix.n && out.size() >= matrix.k);
  const std::byte* tile = TileOf(matrix, row / kTileRows);
  const uint32_t r = row % kTileRows;
  switch (matrix.format) {
    case WeightFormat::kF32:
      for (uint32_t c = 0; c < matrix.k; ++c) {
        std::memcpy(&out[c], tile + (size_t{c} * kTileRows + r) * 4, sizeof(float));
      }
      return;
    case WeightFormat::kBF16:
      for (uint32_t c = 0; c < matrix.k; ++c) {
        BFloat16 value;
        std::memcpy(&value, tile + (size_t{c / 2} * kTileRows + r) * 4 + c % 2 * 2, sizeof(value));
        out[c] = ToFloat(value);
      }
      return;
    case WeightFormat::kQ8:
      for (uint32_t b = 0; b < matrix.k / kQuantBlock; ++b) {
        UnpackQ8Block(tile + b * kQ8BlockBytes, r, &out[size_t{b} * kQuantBlock]);
      }
      return;
    case WeightFormat::kQ4:
      for (uint32_t b = 0; b < matrix.k / kQuantBlock; ++b) {
        UnpackQ4Block(tile + b * kQ4BlockBytes, r, &out[size_t{b} * kQuantBlock]);
      }
      return;
    case WeightFormat::kFp8:
      UnpackFp8Row(matrix, tile, r, out.data());
      return;
    case WeightFormat::kFp4:
    case WeightFormat::kInt4:
      for (uint32_t b = 0; b < matrix.k / kQuantBlock; ++b) {
        UnpackNibbleBlock(matrix.format, tile + b * kNibbleBlockBytes, r,
                          &out[size_t{b} * kQuantBlock]);
      }
      return;
  }
}

}  // namespace essor::kernels
