// What the products of all formats share (linear_multiply_inl.h, linear_multiply_scaled_inl.h),
// written once over Isa: see linear_kernels_inl.h.
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
struct BlockBase {
  using F = typename Isa::F;
  using I = typename Isa::I;

  // Two cache lines are what a step reads of the tile.
  static void FetchStep(Prefetch& prefetch) {
    if constexpr (!kFetch) return;
    __builtin_prefetch(prefetch.from, 0, 2);
    __builtin_prefetch(prefetch.from + 64, 0, 2);
    prefetch.from += prefetch.step;
  }
  // Of one or two lines, half a step each.
  static void FetchScales(Prefetch& prefetch, int lines) {
    if constexpr (!kFetch) return;
    __builtin_prefetch(prefetch.from, 0, 2);
    if (lines == 2) __builtin_prefetch(prefetch.from + 64, 0, 2);
    prefetch.from += static_cast<uint32_t>(lines) * prefetch.step / 2;
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

  static void Store(const F (&sum)[R][V], float* out) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) Isa::Store(out + r * kTileRows + v * Isa::kLanes, sum[r][v]);
    }
  }
};

}  // namespace essor::kernels::micro
