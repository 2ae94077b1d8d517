#include "kernels/cpu/linear_attention_inl.h"

namespace essor::kernels {

const LinearAttentionKernels& Avx2LinearAttentionKernels() { return kLinearAttentionKernels; }

}  // namespace essor::kernels
