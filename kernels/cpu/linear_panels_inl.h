// Activations into panels, the gated activation and the combination of experts, written once over
// Isa: see linear_kernels_inl.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/activation_quantisation.h"
#include "kernels/cpu/bfloat16_rest.h"
#include "kernels/cpu/linear_bytes_inl.h"
#include "kernels/cpu/linear_kernels.h"
#include "kernels/cpu/pack_layout.h"

namespace essor::kernels::micro {

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
void PackPanel(const float* const* rows, const float* factors, uint32_t num_rows, uint32_t k,
               std::byte* panel) {
  const uint32_t whole = k / 32 * 32;
  for (uint32_t r = 0; r < num_rows; ++r) {
    const auto pack = [&](const float* block, uint32_t column) {
      if (factors == nullptr) {
        PackRowBlock<Isa, kKind>(block, column, r, num_rows, panel);
        return;
      }
      alignas(64) float scaled[32];
      for (uint32_t c = 0; c < 32; ++c) scaled[c] = block[c] * factors[r];
      PackRowBlock<Isa, kKind>(scaled, column, r, num_rows, panel);
    };
    for (uint32_t column = 0; column < whole; column += 32) pack(rows[r] + column, column);
    if (whole == k) continue;
    float padded[32] = {};
    std::memcpy(padded, rows[r] + whole, (k - whole) * sizeof(float));
    pack(padded, whole);
  }
}

// See GatedActivation. c * sigmoid(alpha * c) is silu(alpha * c) / alpha.
template <typename Isa>
void Activate(float* gate, const float* up, uint32_t num_rows, const GatedActivation& activation) {
  using F = typename Isa::F;
  const uint32_t count = num_rows * kTileRows;
  if (activation.limit == 0) {
    for (uint32_t i = 0; i < count; i += Isa::kLanes) {
      Isa::Store(gate + i, Isa::Mul(Isa::Silu(Isa::Load(gate + i)), Isa::Load(up + i)));
    }
    return;
  }
  const F limit = Isa::Set(activation.limit);
  const F lowest = Isa::Set(-activation.limit);
  const F alpha = Isa::Set(activation.alpha);
  const F inverse = Isa::Set(1 / activation.alpha);
  for (uint32_t i = 0; i < count; i += Isa::kLanes) {
    const F g = Isa::Silu(Isa::Mul(alpha, Isa::Min(limit, Isa::Load(gate + i))));
    const F u = Isa::Max(lowest, Isa::Min(limit, Isa::Load(up + i)));
    const F scaled = Isa::Mul(g, inverse);
    Isa::Store(gate + i, Isa::Fma(scaled, u, scaled));
  }
}

template <typename Isa, PanelKind kKind>
void PackHidden(const float* hidden, uint32_t num_rows, uint32_t first_column, std::byte* panel) {
  for (uint32_t r = 0; r < num_rows; ++r, hidden += kTileRows) {
    if constexpr (kKind == PanelKind::kBF16) {
      alignas(64) float rest[kTileRows];
      RestOfBFloat16(hidden, kTileRows, rest);
      PackRowBlock<Isa, kKind>(hidden, first_column, 2 * r, 2 * num_rows, panel);
      PackRowBlock<Isa, kKind>(rest, first_column, 2 * r + 1, 2 * num_rows, panel);
    } else {
      PackRowBlock<Isa, kKind>(hidden, first_column, r, num_rows, panel);
    }
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
// Min answer their second argument then. Isa also provides Sub, Div, Round and Exp2Int
// (2^n for integral n in [-126, 127]).
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

}  // namespace essor::kernels::micro
