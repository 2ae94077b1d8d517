// The inner loops of linear attention: one table per ISA.
#pragma once

#include <cstdint>

#include "kernels/cpu/cpu_stream.h"
#include "kernels/linear_attention.h"

namespace essor::kernels {

// Columns of a state that go through all rows of a sequence together: with 128 key dims they are 32
// KB, which stay in the L1 cache. Columns do not mix, so that cutting them changes no bit.
inline constexpr uint32_t kStateColumns = 64;

struct LinearAttentionKernels {
  // Columns [column, column + kStateColumns), or fewer at the end, of one head of one sequence.
  void (*run)(const LinearAttentionParams& params, const SequenceRows& sequence, uint32_t head,
              uint32_t column);
  // Channels [begin, end) of one sequence, all of one head.
  void (*convolve)(const CausalConvolutionParams& params, const SequenceRows& sequence,
                   uint32_t begin, uint32_t end);
};

const LinearAttentionKernels& PortableLinearAttentionKernels();
const LinearAttentionKernels& Avx2LinearAttentionKernels();  // x86-64 only, like the next
const LinearAttentionKernels& Avx512LinearAttentionKernels();

}  // namespace essor::kernels
