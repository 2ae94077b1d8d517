// Plain loops for kernels/attention.h, the measure of every faster version: the whole softmax of a
// row at once, sums in double. On the calling thread.
#pragma once

#include "kernels/attention.h"

namespace essor::kernels::reference {

void WriteKv(const WriteKvParams& params);
void Attention(const AttentionParams& params);

}  // namespace essor::kernels::reference
