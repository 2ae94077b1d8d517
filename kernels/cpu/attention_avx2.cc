#include "kernels/cpu/attention_inl.h"

namespace essor::kernels {

const AttentionKernels& Avx2AttentionKernels() { return kAttentionKernels; }

}  // namespace essor::kernels
