// The products of tiles and panels, written once over Isa: see linear_kernels_inl.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/linear_bytes_inl.h"
#include "kernels/cpu/linear_kernels.h"
#include "kernels/cpu/pack_layout.h"

namespace essor::kernels::micro {

// R rows times V vectors of a tile beginning at lane `lane`. The sums stay in registers: every loop
// over r and v is unrolled.
template <typename Isa, int R, int V, bool kFetch>
struct Block {
  using F = typename Isa::F;
  using I = typename Isa::I;

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

  // The sums of a block stay in registers and those of the row in `out`: both would not fit.
  static void Fp8(const TileProduct& product, int lane) {
    if (!product.resume) Clear(product.out + lane);
    const std::byte* tile = product.tile + lane * 4;
    Prefetch prefetch = product.prefetch;
    for (Fp8Block block = FirstFp8Block(product.k, product.block_offset); block.begin < product.k;
         block = NextFp8Block(block, product.k)) {
      const std::byte* panel = product.panel + size_t{block.first_word} * 8 * R;
      F dot[R][V];
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
        for (int v = 0; v < V; ++v) dot[r][v] = Isa::Zero();
      }
      for (uint32_t word = 0; word < block.num_words; ++word) {
        FetchStep(prefetch);
        I w[V];
        I pairs[2][V];
        LoadWords(tile, w);
#pragma GCC unroll 16
        for (int v = 0; v < V; ++v) Isa::DecodeFp8(w[v], pairs[0][v], pairs[1][v]);
#pragma GCC unroll 2
        for (int pair = 0; pair < 2; ++pair) {
#pragma GCC unroll 16
          for (int r = 0; r < R; ++r) {
            const I x = Isa::SetI(LoadAs<Isa, int32_t>(panel + 4 * (pair * R + r)));
#pragma GCC unroll 16
            for (int v = 0; v < V; ++v) dot[r][v] = Isa::DotBF16(dot[r][v], pairs[pair][v], x);
          }
        }
        tile += kTileRows * 4;
        panel += 8 * R;
      }
      FetchStep(prefetch);
      F scale[V];
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) {
        scale[v] = Isa::Load(reinterpret_cast<const float*>(tile) + v * Isa::kLanes);
      }
      AddBlock(scale, dot, product.out + lane);
      tile += kTileRows * 4;
    }
  }

  // As with kFp8, a row's sums are in `out`.
  template <WeightFormat kFormat>
  static void Nibbles(const TileProduct& product, int lane) {
    if (!product.resume) Clear(product.out + lane);
    const std::byte* tile = product.tile;
    const std::byte* panel = product.panel;
    Prefetch prefetch = product.prefetch;
    for (uint32_t b = 0; b < product.k / kQuantBlock; ++b) {
      F dot[R][V];
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
        for (int v = 0; v < V; ++v) dot[r][v] = Isa::Zero();
      }
      for (uint32_t word = 0; word < kQuantBlock / kNibbleWordColumns; ++word) {
        FetchStep(prefetch);
        I w[V];
        LoadWords(tile + (word * kTileRows + static_cast<uint32_t>(lane)) * 4, w);
        AddPair<kFormat, 0>(w, panel, dot);
        AddPair<kFormat, 1>(w, panel, dot);
        AddPair<kFormat, 2>(w, panel, dot);
        AddPair<kFormat, 3>(w, panel, dot);
        panel += 16 * R;
      }
      FetchScales<1>(prefetch);
      F scale[V];
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) {
        scale[v] = Isa::LoadBF16(tile + kQ4ValueBytes + (lane + v * Isa::kLanes) * 2);
      }
      AddBlock(scale, dot, product.out + lane);
      tile += kNibbleBlockBytes;
    }
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
      FetchScales<1>(prefetch);
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
      FetchScales<2>(prefetch);
      const std::byte* scales = tile + kQ4ValueBytes + lane * 2;
      AddScaled(scales, panel, dot, sum);
      AddMinima(scales + kScaleRowBytes, panel, sum);
      tile += kQ4BlockBytes;
      panel += R * kQuantRowBytes;
    }
    Store(sum, product.out + lane);
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

  static void Begin(const TileProduct& product, int lane, F (&sum)[R][V]) {
    const float* out = product.out + lane;
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) {
        sum[r][v] = product.resume ? Isa::Load(out + r * kTileRows + v * Isa::kLanes) : Isa::Zero();
      }
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

  // dot += pair `kPair` of the words' columns
  template <WeightFormat kFormat, int kPair>
  static void AddPair(const I (&w)[V], const std::byte* panel, F (&dot)[R][V]) {
    I pair[V];
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) pair[v] = Isa::template DecodeNibbles<kFormat, kPair>(w[v]);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const I x = Isa::SetI(LoadAs<Isa, int32_t>(panel + 4 * (kPair * R + r)));
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) dot[r][v] = Isa::DotBF16(dot[r][v], pair[v], x);
    }
  }

  static void Clear(float* out) {
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < V; ++v) Isa::Store(out + r * kTileRows + v * Isa::kLanes, Isa::Zero());
    }
  }

  // out += dot * scale
  static void AddBlock(const F (&scale)[V], const F (&dot)[R][V], float* out) {
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) {
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        float* const to = out + r * kTileRows + v * Isa::kLanes;
        Isa::Store(to, Isa::Fma(dot[r][v], scale[v], Isa::Load(to)));
      }
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
void MultiplyLanes(const TileProduct& product) {
  constexpr bool kQuant = PanelKindOf(kFormat) == PanelKind::kQuant;
  constexpr int kVectors = Isa::Vectors(R, kQuant);
  using B = Block<Isa, R, kVectors, kFetch>;
  for (int lane = 0; lane < static_cast<int>(kTileRows); lane += kVectors * Isa::kLanes) {
    if constexpr (kFormat == WeightFormat::kF32) B::F32(product, lane);
    if constexpr (kFormat == WeightFormat::kBF16) B::BF16(product, lane);
    if constexpr (kFormat == WeightFormat::kFp8) B::Fp8(product, lane);
    if constexpr (IsNibbles(kFormat)) B::template Nibbles<kFormat>(product, lane);
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
