// The micro-kernels of matrix products, written once over a traits type that names the vector
// instructions (linear_avx512.cc, linear_avx2.cc, linear_portable.cc). Included by those files
// only: each is compiled with its own flags, so everything here is a template over Isa.
//
// Isa provides, for vectors F of float and I of int32 with kLanes lanes:
//   kMaxRows, kMaxQuantRows              rows of a panel, as registers allow
//   Vectors(rows, quant)                 vectors of a tile held in registers at a time
//   Zero() Load(p) Store(p, f) Set(s) Fma(a, b, c) = a * b + c, Mul(a, b), LoadHalf(p): f16 to F
//   LoadI(p) SetI(s) ToFloat(i)
//   DotBF16(sum, w, x)                   sum += the products of two bf16 pairs per lane
//   InitQ8(minus_128_sum), DotQ8(sum, w, x)   exact sums of (w - 128) * x over 4 bytes per lane;
//                                        a block's sum starts from InitQ8
//   LowNibbles(w) HighNibbles(w) DotQ4(sum, nibbles, x)     exact sums of w * x over 4 bytes
//   Silu(f)
//   RoundBF16(x, words)                  32 floats to 16 words of two bf16
//   AbsMax(x)                            of 32 floats; NaN where one is NaN
//   Quantise(x, inverse, words)          32 floats to 8 words of four int8; returns their sum
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "kernels/activation_quantisation.h"
#include "kernels/cpu/linear_kernels.h"
#include "kernels/cpu/pack_layout.h"

namespace essor::kernels::micro {

template <typename Isa, typename T>
inline T LoadAs(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

template <typename Isa, typename T>
inline void StoreAs(std::byte* to, T value) {
  std::memcpy(to, &value, sizeof(value));
}

// R rows times V vectors of a tile beginning at lane `lane`. The sums stay in registers: every loop
// over r and v is unrolled.
template <typename Isa, int R, int V, bool kFetch>
struct Block {
  using F = typename Isa::F;
  using I = typename Isa::I;

  static void F32(const std::byte* tile, int lane, const std::byte* panel, uint32_t k, float* out,
                  Prefetch prefetch) {
    F sum[R][V];
    Clear(sum);
    const std::byte* weights = tile + lane * 4;
    for (uint32_t column = 0; column < k; ++column) {
      FetchStep(prefetch);
      F w[V];
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) {
        w[v] = Isa::Load(reinterpret_cast<const float*>(weights) + v * Isa::kLanes);
      }
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const F x = Isa::Set(LoadAs<Isa, float>(panel + 4 * r));
#pragma GCC unroll 16
        for (int v = 0; v < V; ++v) sum[r][v] = Isa::Fma(w[v], x, sum[r][v]);
      }
      weights += kTileRows * 4;
      panel += R * 4;
    }
    Store(sum, out + lane);
  }

  static void BF16(const std::byte* tile, int lane, const std::byte* panel, uint32_t k, float* out,
                   Prefetch prefetch) {
    F sum[R][V];
    Clear(sum);
    const std::byte* weights = tile + lane * 4;
    for (uint32_t pair = 0; pair < (k + 1) / 2; ++pair) {
      FetchStep(prefetch);
      I w[V];
      LoadWords(weights, w);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const I x = Isa::SetI(LoadAs<Isa, int32_t>(panel + 4 * r));
#pragma GCC unroll 16
        for (int v = 0; v < V; ++v) sum[r][v] = Isa::DotBF16(sum[r][v], w[v], x);
      }
      weights += kTileRows * 4;
      panel += R * 4;
    }
    Store(sum, out + lane);
  }

  static void Q8(const std::byte* tile, int lane, const std::byte* panel, uint32_t k, float* out,
                 Prefetch prefetch) {
    F sum[R][V];
    Clear(sum);
    for (uint32_t b = 0; b < k / kQuantBlock; ++b) {
      I dot[R][V];
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const I start = Isa::InitQ8(LoadAs<Isa, int32_t>(panel + (9 * R + r) * 4));
#pragma GCC unroll 16
        for (int v = 0; v < V; ++v) dot[r][v] = start;
      }
#pragma GCC unroll 8
      for (int g = 0; g < 8; ++g) {
        FetchStep(prefetch);
        I w[V];
        LoadWords(tile + (g * kTileRows + lane) * 4, w);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
          const I x = Isa::SetI(LoadAs<Isa, int32_t>(panel + (g * R + r) * 4));
#pragma GCC unroll 16
          for (int v = 0; v < V; ++v) dot[r][v] = Isa::DotQ8(dot[r][v], w[v], x);
        }
      }
      FetchScales<1>(prefetch);
      AddScaled(tile + kQ8ValueBytes + lane * 2, panel, dot, sum);
      tile += kQ8BlockBytes;
      panel += R * kQuantRowBytes;
    }
    Store(sum, out + lane);
  }

  static void Q4(const std::byte* tile, int lane, const std::byte* panel, uint32_t k, float* out,
                 Prefetch prefetch) {
    F sum[R][V];
    Clear(sum);
    for (uint32_t b = 0; b < k / kQuantBlock; ++b) {
      I dot[R][V];
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
        for (int v = 0; v < V; ++v) dot[r][v] = Isa::SetI(0);
      }
#pragma GCC unroll 4
      for (int g = 0; g < 4; ++g) {
        FetchStep(prefetch);
        I w[V];
        LoadWords(tile + (g * kTileRows + lane) * 4, w);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
          const I low = Isa::SetI(LoadAs<Isa, int32_t>(panel + (g * R + r) * 4));
          const I high = Isa::SetI(LoadAs<Isa, int32_t>(panel + ((g + 4) * R + r) * 4));
#pragma GCC unroll 16
          for (int v = 0; v < V; ++v) {
            dot[r][v] = Isa::DotQ4(dot[r][v], Isa::LowNibbles(w[v]), low);
            dot[r][v] = Isa::DotQ4(dot[r][v], Isa::HighNibbles(w[v]), high);
          }
        }
      }
      FetchScales<2>(prefetch);
      const std::byte* scales = tile + kQ4ValueBytes + lane * 2;
      AddScaled(scales, panel, dot, sum);
      AddMinima(scales + kScaleRowBytes, panel, sum);
      tile += kQ4BlockBytes;
      panel += R * kQuantRowBytes;
    }
    Store(sum, out + lane);
  }

 private:
  // Two cache lines are what a step reads of the tile.
  static void FetchStep(Prefetch& prefetch) {
    if constexpr (!kFetch) return;
    __builtin_prefetch(prefetch.from, 0, 2);
    __builtin_prefetch(prefetch.from + 64, 0, 2);
    prefetch.from += prefetch.step;
  }
  // Half a step each.
  template <int kLines>
  static void FetchScales(Prefetch& prefetch) {
    if constexpr (!kFetch) return;
    __builtin_prefetch(prefetch.from, 0, 2);
    if constexpr (kLines == 2) __builtin_prefetch(prefetch.from + 64, 0, 2);
    prefetch.from += kLines * prefetch.step / 2;
  }

  static void Clear(F (&sum)[R][V]) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) sum[r][v] = Isa::Zero();
    }
  }

  static void LoadWords(const std::byte* from, I (&w)[V]) {
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) w[v] = Isa::LoadI(from + v * Isa::kLanes * 4);
  }

  // sum += dot * (weight scale * x scale)
  static void AddScaled(const std::byte* scales, const std::byte* panel, const I (&dot)[R][V],
                        F (&sum)[R][V]) {
    F scale[V];
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) scale[v] = Isa::LoadHalf(scales + v * Isa::kLanes * 2);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const F x_scale = Isa::Set(LoadAs<Isa, float>(panel + (8 * R + r) * 4));
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) {
        sum[r][v] = Isa::Fma(Isa::ToFloat(dot[r][v]), Isa::Mul(scale[v], x_scale), sum[r][v]);
      }
    }
  }

  // sum += weight minimum * (x scale * sum of x values)
  static void AddMinima(const std::byte* minima, const std::byte* panel, F (&sum)[R][V]) {
    F minimum[V];
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) minimum[v] = Isa::LoadHalf(minima + v * Isa::kLanes * 2);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const F x_sum = Isa::Set(LoadAs<Isa, float>(panel + (10 * R + r) * 4));
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) sum[r][v] = Isa::Fma(minimum[v], x_sum, sum[r][v]);
    }
  }

  static void Store(const F (&sum)[R][V], float* out) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) Isa::Store(out + r * kTileRows + v * Isa::kLanes, sum[r][v]);
    }
  }
};

template <typename Isa, WeightFormat kFormat, int R, bool kFetch>
void MultiplyLanes(const std::byte* tile, const std::byte* panel, uint32_t k, float* out,
                   Prefetch prefetch) {
  constexpr bool kQuant = PanelKindOf(kFormat) == PanelKind::kQuant;
  constexpr int kVectors = Isa::Vectors(R, kQuant);
  using B = Block<Isa, R, kVectors, kFetch>;
  for (int lane = 0; lane < static_cast<int>(kTileRows); lane += kVectors * Isa::kLanes) {
    if constexpr (kFormat == WeightFormat::kF32) B::F32(tile, lane, panel, k, out, prefetch);
    if constexpr (kFormat == WeightFormat::kBF16) B::BF16(tile, lane, panel, k, out, prefetch);
    if constexpr (kFormat == WeightFormat::kQ8) B::Q8(tile, lane, panel, k, out, prefetch);
    if constexpr (kFormat == WeightFormat::kQ4) B::Q4(tile, lane, panel, k, out, prefetch);
  }
}

template <typename Isa, WeightFormat kFormat, int R>
void MultiplyTile(const std::byte* tile, const std::byte* panel, uint32_t k, float* out,
                  Prefetch prefetch) {
  prefetch.step == 0 ? MultiplyLanes<Isa, kFormat, R, false>(tile, panel, k, out, prefetch)
                     : MultiplyLanes<Isa, kFormat, R, true>(tile, panel, k, out, prefetch);
}

// Writes 32 values of row r of R at `column`, a multiple of 32, of a panel.
template <typename Isa, PanelKind kKind>
void PackRowBlock(const float* x, uint32_t column, uint32_t r, uint32_t num_rows,
                  std::byte* panel) {
  const size_t stride = size_t{num_rows} * 4;
  std::byte* block = panel + size_t{num_rows} * PanelRowBytes(kKind, column);
  std::byte* to = block + size_t{r} * 4;
  if constexpr (kKind == PanelKind::kF32) {
    for (uint32_t c = 0; c < 32; ++c) StoreAs<Isa>(to + c * stride, x[c]);
  } else if constexpr (kKind == PanelKind::kBF16) {
    alignas(64) uint32_t words[16];
    Isa::RoundBF16(x, words);
    for (uint32_t i = 0; i < 16; ++i) StoreAs<Isa>(to + i * stride, words[i]);
  } else {
    const float amax = Isa::AbsMax(x);
    const bool tiny = amax < kTinyAmax;
    const float scale = tiny ? 0 : amax / kInt8Max;
    alignas(64) uint32_t words[8];
    const int32_t sum = Isa::Quantise(x, tiny ? 0 : kInt8Max / amax, words);
    for (uint32_t i = 0; i < 8; ++i) StoreAs<Isa>(to + i * stride, words[i]);
    StoreAs<Isa>(to + 8 * stride, scale);
    // Unsigned: the sum of a broken block may be anything.
    StoreAs<Isa>(to + 9 * stride, 128u * (0u - static_cast<uint32_t>(sum)));
    StoreAs<Isa>(to + 10 * stride, scale * static_cast<float>(sum));
  }
}

template <typename Isa, PanelKind kKind>
void PackPanel(const float* const* rows, uint32_t num_rows, uint32_t k, std::byte* panel) {
  const uint32_t whole = k / 32 * 32;
  for (uint32_t r = 0; r < num_rows; ++r) {
    for (uint32_t column = 0; column < whole; column += 32) {
      PackRowBlock<Isa, kKind>(rows[r] + column, column, r, num_rows, panel);
    }
    if (whole == k) continue;
    float padded[32] = {};
    std::memcpy(padded, rows[r] + whole, (k - whole) * sizeof(float));
    PackRowBlock<Isa, kKind>(padded, whole, r, num_rows, panel);
  }
}

template <typename Isa, PanelKind kKind>
void PackGated(float* gate, const float* up, uint32_t num_rows, uint32_t first_column,
               std::byte* panel) {
  for (uint32_t r = 0; r < num_rows; ++r, gate += kTileRows, up += kTileRows) {
    for (uint32_t lane = 0; lane < kTileRows; lane += Isa::kLanes) {
      Isa::Store(gate + lane, Isa::Mul(Isa::Silu(Isa::Load(gate + lane)), Isa::Load(up + lane)));
    }
    PackRowBlock<Isa, kKind>(gate, first_column, r, num_rows, panel);
  }
}

template <typename Isa>
void AddScaled(float* sum, const float* x, float weight) {
  const typename Isa::F w = Isa::Set(weight);
  for (uint32_t lane = 0; lane < kTileRows; lane += Isa::kLanes) {
    Isa::Store(sum + lane, Isa::Fma(Isa::Load(x + lane), w, Isa::Load(sum + lane)));
  }
}

// x / (1 + exp(-x)). exp(z) = 2^n * e^f with f = z - n ln 2 in [-0.35, 0.35] and the Taylor
// polynomial of degree 7, whose remainder 0.35^8 / 8! is 6e-9 of the result. NaN stays NaN: Max and
// Min answer their second argument then. Isa also provides Add, Sub, Div, Max, Min, Round and
// Exp2Int (2^n for integral n in [-126, 127]).
template <typename Isa>
typename Isa::F SiluPolynomial(typename Isa::F x) {
  using F = typename Isa::F;
  // Beyond -87 the result is below 1e-36 in magnitude; 1 + exp(87) is still finite.
  const F z = Isa::Max(Isa::Set(-87.0f), Isa::Min(Isa::Set(87.0f), Isa::Sub(Isa::Zero(), x)));
  const F n = Isa::Round(Isa::Mul(z, Isa::Set(1.44269504f)));
  // ln 2 in two parts, the first with so few bits that n times it is exact.
  F f = Isa::Fma(n, Isa::Set(-0.693359375f), z);
  f = Isa::Fma(n, Isa::Set(2.12194440e-4f), f);
  F e = Isa::Set(1.0f / 5040);
  e = Isa::Fma(e, f, Isa::Set(1.0f / 720));
  e = Isa::Fma(e, f, Isa::Set(1.0f / 120));
  e = Isa::Fma(e, f, Isa::Set(1.0f / 24));
  e = Isa::Fma(e, f, Isa::Set(1.0f / 6));
  e = Isa::Fma(e, f, Isa::Set(0.5f));
  e = Isa::Fma(e, f, Isa::Set(1.0f));
  e = Isa::Fma(e, f, Isa::Set(1.0f));
  return Isa::Div(x, Isa::Fma(e, Isa::Exp2Int(n), Isa::Set(1.0f)));
}

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
  kernels.pack_gated[kIndex] = PackGated<Isa, kKind>;
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
  FillPanel<Isa, PanelKind::kF32>(kernels);
  FillPanel<Isa, PanelKind::kBF16>(kernels);
  FillPanel<Isa, PanelKind::kQuant>(kernels);
  kernels.add_scaled = AddScaled<Isa>;
  return kernels;
}

}  // namespace essor::kernels::micro
