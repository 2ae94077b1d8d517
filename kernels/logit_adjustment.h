// What requests change in a row's logits before a token is chosen from it.
#pragma once

#include <cstdint>
#include <span>
#include <utility>

#include "kernels/stream.h"

namespace essor::kernels {

// A mark says how a sequence knows a token: 0 = not at all; else 1 + 2 * how often it is among the
// new tokens.
using TokenMark = uint32_t;

// Changes of one row's slice, made in this order (the usual one: vLLM's, and Hugging Face's where
// it has them). Each operation rounds to float32; NaN stays NaN.
//   bias        l + bias
//   repetition  of marked tokens: l / penalty above 0, l * penalty below (Keskar, McCann, Varshney,
//               Xiong, Socher: "CTRL", 2019)
//   frequency   l - count * penalty, presence  l - penalty: of tokens among the new ones (OpenAI's
//               API reference)
//   blocked     -infinity
struct RowAdjustment {
  uint32_t row = 0;  // of the logits
  float repetition_penalty = 1;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  std::span<const TokenMark> marks = {};  // [width], or empty: nothing is marked
  std::span<const uint32_t> marked = {};  // the columns whose marks are not 0, each once
  std::span<const std::pair<uint32_t, float>> biases = {};  // columns, each once
  std::span<const uint32_t> blocked = {};                   // columns
};
struct AdjustLogitsParams {
  float* logits;  // [.., width]; changed in place
  uint32_t width;
  std::span<const RowAdjustment> rows;  // different ones
};
void AdjustLogits(const AdjustLogitsParams& params, Stream& stream);

}  // namespace essor::kernels
