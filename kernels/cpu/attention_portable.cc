#include "kernels/cpu/attention_inl.h"

namespace essor::kernels {

const AttentionKernels& PortableAttentionKernels() { return kAttentionKernels; }

}  // namespace essor::kernels
