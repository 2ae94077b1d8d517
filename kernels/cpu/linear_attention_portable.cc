#include "kernels/cpu/linear_attention_inl.h"

namespace essor::kernels {

const LinearAttentionKernels& PortableLinearAttentionKernels() { return kLinearAttentionKernels; }

}  // namespace essor::kernels
