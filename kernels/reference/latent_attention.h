// Plain loops for kernels/latent_attention.h, the measure of every faster version: the whole
// softmax of a row at once, sums in double. On the calling thread.
#pragma once

#include "kernels/latent_attention.h"

namespace essor::kernels::reference {

void WriteLatents(const WriteLatentsParams& params);
void LatentAttention(const LatentAttentionParams& params);

}  // namespace essor::kernels::reference
