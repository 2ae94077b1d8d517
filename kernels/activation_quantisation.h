// How 32 consecutive activations become int8, the one rule that every implementation follows bit by
// bit: scale = amax / 127, value = x * (127 / amax) rounded to nearest, ties to even. Blocks whose
// amax is below kTinyAmax count as zeros (127 / amax would overflow further down). A NaN or an
// infinity anywhere makes the scale NaN or infinite, and so every result of that row NaN; the
// values of such a block are unspecified.
#pragma once

namespace essor::kernels {

inline constexpr float kTinyAmax = 0x1p-120f;
inline constexpr float kInt8Max = 127.0f;

}  // namespace essor::kernels
