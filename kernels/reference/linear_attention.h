// Plain loops in double precision but for the state, the measure of all implementations.
#pragma once

#include "kernels/linear_attention.h"

namespace essor::kernels::reference {

void LinearAttention(const LinearAttentionParams& params);
void CausalConvolution(const CausalConvolutionParams& params);
void DeltaGates(const DeltaGatesParams& params);

}  // namespace essor::kernels::reference
