// The products of weights that multiply as bfloat16 and have a scale per block of columns, written
// once over Isa: see linear_kernels_inl.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/linear_block_inl.h"

namespace essor::kernels::micro {

// The sums of a block stay in registers and those of the row in `out`: both would not fit.
template <typename Isa, int R, int V, bool kFetch>
struct ScaledBlock : BlockBase<Isa, R, V, kFetch> {
  using Base = BlockBase<Isa, R, V, kFetch>;
  using typename Base::F;
  using typename Base::I;

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

  // kFp4 and kInt4.
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
      FetchScales(prefetch, 1);
      F scale[V];
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) {
        scale[v] = Isa::LoadBF16(tile + kQ4ValueBytes + (lane + v * Isa::kLanes) * 2);
      }
      AddBlock(scale, dot, product.out + lane);
      tile += kNibbleBlockBytes;
    }
  }

 private:
  using Base::FetchScales;
  using Base::FetchStep;
  using Base::LoadWords;

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
};

}  // namespace essor::kernels::micro
