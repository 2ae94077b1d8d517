// The random numbers of sampling: a pure function of (seed, position, token id). Every
// implementation gives the same bits, whatever the processor and however the vocabulary is split,
// because only correctly rounded operations in a stated order are used (no libm, no fused
// multiply-add).
//
// Generator: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2,
// 3", SC 2011) with key (seed low, seed high) and counter (block, position low, position high, 0).
// Vocabulary ids come in groups of 64: id = 64 g + 16 w + l, (w < 4, l < 16) uses word w of block
// 16 g + l, so that vectors of consecutive ids need no shuffling.
//
// From a 32-bit word x, an exponential variate E = -log(1 - u) with u = (x + 1/2) / 2^32, and
// Gumbel = -log(E). E is computed without the cancellation in 1 - u, so that the large values,
// those that win, keep full precision.
#pragma once

#include <array>
#include <cstdint>

namespace essor::kernels {

inline constexpr uint32_t kGumbelGroup = 64;  // ids that share 16 Philox blocks
inline constexpr uint32_t kPhiloxRounds = 10;
inline constexpr uint32_t kPhiloxMultiplier0 = 0xD2511F53u;
inline constexpr uint32_t kPhiloxMultiplier1 = 0xCD9E8D57u;
inline constexpr uint32_t kPhiloxKeyStep0 = 0x9E3779B9u;
inline constexpr uint32_t kPhiloxKeyStep1 = 0xBB67AE85u;

// atanh(s) = s (1 + s^2/3 + s^4/5 + ...); |s| <= 1/3 here, so that the terms up to s^12/13 leave a
// relative error below (1/3)^14 / 15 / (1 - 1/9) < 2e-8.
inline constexpr float kAtanhSeries[] = {1.0f,        1.0f / 3.0f,  1.0f / 5.0f, 1.0f / 7.0f,
                                         1.0f / 9.0f, 1.0f / 11.0f, 1.0f / 13.0f};
inline constexpr float kLn2 = 0.693147180559945f;
inline constexpr uint32_t kSqrtHalfBits = 0x3f3504f3u;  // sqrt(1/2) as float

std::array<uint32_t, 4> Philox4x32(const std::array<uint32_t, 4>& counter,
                                   const std::array<uint32_t, 2>& key);

// A draw from the standard Gumbel distribution, between -3.2 and 22.9.
float Gumbel(uint64_t seed, uint64_t position, uint32_t id);

}  // namespace essor::kernels
