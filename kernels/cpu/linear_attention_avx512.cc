#include "kernels/cpu/linear_attention_inl.h"

namespace essor::kernels {

const LinearAttentionKernels& Avx512LinearAttentionKernels() { return kLinearAttentionKernels; }

}  // namespace essor::kernels
