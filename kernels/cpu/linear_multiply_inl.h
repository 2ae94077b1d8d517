// The products of tiles and panels, written once over Isa: see linear_kernels_inl.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/linear_block_inl.h"
#include "kernels/cpu/linear_multiply_scaled_inl.h"

namespace essor::kernels::micro {

// Of plain and of integer formats; those of ScaledBlock aside.
template <typename Isa, int R, int V, bool kFetch>
struct Block : BlockBase<Isa, R, V, kFetch> {
  using Base = BlockBase<Isa, R, V, kFetch>;
  using typename Base::F;
  using typename Base::I;

  static void F32(const TileProduct& product, int lane) {
    F sum[R][V];
    Begin(product, lane, sum);
    const std::byte* weights = product.tile + lane * 4;
    const std::byte* panel = product.panel;
    Prefetch prefetch = product.prefetch;
    for (uint32_t column = 0; column < product.k; ++column) {
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
    Store(sum, product.out + lane);
  }

  static void BF16(const TileProduct& product, int lane) {
    F sum[R][V];
    Begin(product, lane, sum);
    const std::byte* weights = product.tile + lane * 4;
    const std::byte* panel = product.panel;
    Prefetch prefetch = product.prefetch;
    for (uint32_t pair = 0; pair < (product.k + 1) / 2; ++pair) {
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
    Store(sum, product.out + lane);
  }

  static void Q8(const TileProduct& product, int lane) {
    F sum[R][V];
    Begin(product, lane, sum);
    const std::byte* tile = product.tile;
    const std::byte* panel = product.panel;
    Prefetch prefetch = product.prefetch;
    for (uint32_t b = 0; b < product.k / kQuantBlock; ++b) {
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
      FetchScales(prefetch, 1);
      AddScaled(tile + kQ8ValueBytes + lane * 2, panel, dot, sum);
      tile += kQ8BlockBytes;
      panel += R * kQuantRowBytes;
    }
    Store(sum, product.out + lane);
  }

  static void Q4(const TileProduct& product, int lane) {
    F sum[R][V];
    Begin(product, lane, sum);
    const std::byte* tile = product.tile;
    const std::byte* panel = product.panel;
    Prefetch prefetch = product.prefetch;
    for (uint32_t b = 0; b < product.k / kQuantBlock; ++b) {
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
      FetchScales(prefetch, 2);
      const std::byte* scales = tile + kQ4ValueBytes + lane * 2;
      AddScaled(scales, panel, dot, sum);
      AddMinima(scales + kScaleRowBytes, panel, sum);
      tile += kQ4BlockBytes;
      panel += R * kQuantRowBytes;
    }
    Store(sum, product.out + lane);
  }

 private:
  using Base::Begin;
  using Base::FetchScales;
  using Base::FetchStep;
  using Base::LoadWords;
  using Base::Store;

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
};

template <typename Isa, WeightFormat kFormat, int R, bool kFetch>
void MultiplyLanes(const TileProduct& product) {
  constexpr bool kQuant = PanelKindOf(kFormat) == PanelKind::kQuant;
  constexpr int kVectors = Isa::Vectors(R, kQuant);
  using B = Block<Isa, R, kVectors, kFetch>;
  using Scaled = ScaledBlock<Isa, R, kVectors, kFetch>;
  for (int lane = 0; lane < static_cast<int>(kTileRows); lane += kVectors * Isa::kLanes) {
    if constexpr (kFormat == WeightFormat::kF32) B::F32(product, lane);
    if constexpr (kFormat == WeightFormat::kBF16) B::BF16(product, lane);
    if constexpr (kFormat == WeightFormat::kFp8) Scaled::Fp8(product, lane);
    if constexpr (IsNibbles(kFormat)) Scaled::template Nibbles<kFormat>(product, lane);
    if constexpr (kFormat == WeightFormat::kQ8) B::Q8(product, lane);
    if constexpr (kFormat == WeightFormat::kQ4) B::Q4(product, lane);
  }
}

template <typename Isa, WeightFormat kFormat, int R>
void MultiplyTile(const TileProduct& product) {
  product.prefetch.step == 0 ? MultiplyLanes<Isa, kFormat, R, false>(product)
                             : MultiplyLanes<Isa, kFormat, R, true>(product);
}

}  // namespace essor::kernels::micro
