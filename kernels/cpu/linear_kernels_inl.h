// The table of linear_kernels.h for one instruction set. The micro-kernels are written once over a
// traits type that names the vector instructions (linear_avx512.cc, linear_avx2.cc,
// linear_portable.cc). Included by those files only: each is compiled with its own flags, so
// everything here is a template over Isa.
//
// Isa provides, for vectors F of float and I of int32 with kLanes lanes:
//   kMaxRows, kMaxQuantRows              rows of a panel, as registers allow
//   Vectors(rows, quant)                 vectors of a tile held in registers at a time
//   Zero() Load(p) Store(p, f) Set(s) Fma(a, b, c) = a * b + c, Mul(a, b), LoadHalf(p): f16 to F
//   LoadI(p) SetI(s) ToFloat(i)
//   DotBF16(sum, w, x)                   sum += the products of two bf16 pairs per lane
//   DecodeFp8(w, first, second)          four e4m3 per lane, in the order 0 2 1 3, to bf16 pairs
//                                        (0, 1) and (2, 3); NaN to NaN
//   DecodeNibbles<format, i>(w)          pair i of eight codes per lane (pack_layout.h) as bf16
//   LoadBF16(p)                          bf16 to F
//   InitQ8(minus_128_sum), DotQ8(sum, w, x)   exact sums of (w - 128) * x over 4 bytes per lane;
//                                        a block's sum starts from InitQ8
//   LowNibbles(w) HighNibbles(w) DotQ4(sum, nibbles, x)     exact sums of w * x over 4 bytes
//   Min(a, b) Max(a, b)                  b where one is NaN
//   Silu(f)
//   RoundBF16(x, words)                  32 floats to 16 words of two bf16
//   AbsMax(x)                            of 32 floats; NaN where one is NaN
//   Quantise(x, inverse, words)          32 floats to 8 words of four int8; returns their sum
#pragma once

#include <utility>

#include "kernels/cpu/linear_kernels.h"
#include "kernels/cpu/linear_multiply_inl.h"
#include "kernels/cpu/linear_panels_inl.h"

namespace essor::kernels::micro {

template <typename Isa, WeightFormat kFormat, int... kRows>
void FillMultiply(LinearKernels& kernels, std::integer_sequence<int, kRows...>) {
  ((kernels.multiply[static_cast<int>(kFormat)][kRows + 1] = MultiplyTile<Isa, kFormat, kRows + 1>),
   ...);
}

template <typename Isa, PanelKind kKind>
void FillPanel(LinearKernels& kernels) {
  constexpr auto kIndex = static_cast<int>(kKind);
  kernels.max_rows[kIndex] = kKind == PanelKind::kQuant ? Isa::kMaxQuantRows : Isa::kMaxRows;
  kernels.pack_panel[kIndex] = PackPanel<Isa, kKind>;
  kernels.pack_hidden[kIndex] = PackHidden<Isa, kKind>;
}

template <typename Isa>
LinearKernels MakeLinearKernels() {
  LinearKernels kernels{};
  using Rows = std::make_integer_sequence<int, Isa::kMaxRows>;
  using QuantRows = std::make_integer_sequence<int, Isa::kMaxQuantRows>;
  FillMultiply<Isa, WeightFormat::kF32>(kernels, Rows());
  FillMultiply<Isa, WeightFormat::kBF16>(kernels, Rows());
  FillMultiply<Isa, WeightFormat::kQ8>(kernels, QuantRows());
  FillMultiply<Isa, WeightFormat::kQ4>(kernels, QuantRows());
  FillMultiply<Isa, WeightFormat::kFp8>(kernels, Rows());
  FillMultiply<Isa, WeightFormat::kFp4>(kernels, Rows());
  FillMultiply<Isa, WeightFormat::kInt4>(kernels, Rows());
  FillPanel<Isa, PanelKind::kF32>(kernels);
  FillPanel<Isa, PanelKind::kBF16>(kernels);
  FillPanel<Isa, PanelKind::kQuant>(kernels);
  kernels.activate = Activate<Isa>;
  kernels.add_scaled = AddScaled<Isa>;
  return kernels;
}

}  // namespace essor::kernels::micro
