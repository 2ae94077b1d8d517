// What one instruction set provides for matrix products: a table of functions that the drivers
// (linear.cc, moe.cc) call tile by tile, and the layout of activations they read.
//
// A panel holds the activations of 1 to kMaxPanelRows rows, interleaved so that the micro-kernel
// reads it from front to back. Columns are padded with zeros to a multiple of 32. Rows = R:
//
//   kF32    per column:        [R] float
//   kBF16   per column pair:   [R][2] bf16 (kBF16, kFp8, kFp4 and kInt4 weights)
//   kQuant  per 32 columns:    [8][R][4] int8, then [R] float scale, [R] int32 -128 * sum,
//                              [R] float scale * sum       (sum = of the block's int8 values)
//
// Included by files compiled for instruction sets that the machine may not have. So functions here
// and in pack_layout.h are static: an out-of-line copy from such a file must not serve the others.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/linear.h"
#include "kernels/packed_matrix.h"

namespace essor::kernels {

enum class PanelKind { kF32, kBF16, kQuant };
inline constexpr uint32_t kNumPanelKinds = 3;
inline constexpr uint32_t kNumWeightFormats = 7;
inline constexpr uint32_t kMaxPanelRows = 12;
inline constexpr size_t kQuantRowBytes = 32 + 4 + 4 + 4;  // of one row in 32 columns

static inline constexpr PanelKind PanelKindOf(WeightFormat format) {
  switch (format) {
    case WeightFormat::kF32:
      return PanelKind::kF32;
    case WeightFormat::kBF16:
    case WeightFormat::kFp8:
    case WeightFormat::kFp4:
    case WeightFormat::kInt4:
      return PanelKind::kBF16;
    case WeightFormat::kQ8:
    case WeightFormat::kQ4:
      return PanelKind::kQuant;
  }
  return PanelKind::kF32;
}

// Bytes of one row of a panel; a panel of R rows has R times as many.
static inline constexpr size_t PanelRowBytes(PanelKind kind, uint32_t k) {
  const size_t blocks = (size_t{k} + 31) / 32;
  switch (kind) {
    case PanelKind::kF32:
      return blocks * 32 * sizeof(float);
    case PanelKind::kBF16:
      return blocks * 32 * sizeof(uint16_t);
    case PanelKind::kQuant:
      return blocks * kQuantRowBytes;
  }
  return 0;
}

// Memory that a kernel asks into the L2 cache while it works: for each 128 bytes that it reads of
// its tile the next `step` bytes. May point beyond the matrix: nothing there is read.
struct Prefetch {
  const std::byte* from;
  uint32_t step;  // at most 128; 0 = nothing
};

// out[r * 32 + i] = sum over k columns of panel row r times tile row i. Each sum is taken in one
// fixed order, the same for every number of rows; with `resume` it goes on from what `out` holds,
// so that the columns may come in several calls, each but the last of a multiple of 32 (kFp8: and
// up to the end of a block of scales), without changing a bit.
struct TileProduct {
  const std::byte* tile;   // at its first column to multiply
  const std::byte* panel;  // likewise
  uint32_t k;
  uint32_t block_offset = 0;  // kFp8: of the first column, see Fp8Rows
  bool resume = false;
  float* out;
  Prefetch prefetch;
};

struct LinearKernels {
  using Multiply = void (*)(const TileProduct& product);
  // Rows of x, each k long and multiplied by its factor, to a panel. Null `factors` are all 1.
  using PackPanel = void (*)(const float* const* rows, const float* factors, uint32_t num_rows,
                             uint32_t k, std::byte* panel);
  // gate = the activation of gate and up, [num_rows][32] values each.
  using Activate = void (*)(float* gate, const float* up, uint32_t num_rows,
                            const GatedActivation& activation);
  // Hidden values [num_rows][32], written to a panel at `first_column`, a multiple of 32. A kBF16
  // panel gets two rows for each: the rounded values and what the rounding left over.
  using PackHidden = void (*)(const float* hidden, uint32_t num_rows, uint32_t first_column,
                              std::byte* panel);

  uint32_t max_rows[kNumPanelKinds];  // best number of rows of a panel, at most kMaxPanelRows
  Multiply multiply[kNumWeightFormats][kMaxPanelRows + 1];  // [format][rows], from 1 on
  PackPanel pack_panel[kNumPanelKinds];
  Activate activate;
  PackHidden pack_hidden[kNumPanelKinds];
  // sum[i] += weight * x[i] of 32 values, multiplied and added in two roundings or one.
  void (*add_scaled)(float* sum, const float* x, float weight);

  Multiply MultiplyOf(WeightFormat format, uint32_t rows) const {
    return multiply[static_cast<uint32_t>(format)][rows];
  }
};

// The tables; to be called only where the processor has the instructions.
const LinearKernels& PortableLinearKernels();
#if defined(__x86_64__)
const LinearKernels& Avx2LinearKernels();
const LinearKernels& Avx512LinearKernels();
#endif

}  // namespace essor::kernels
