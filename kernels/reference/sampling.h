// Plain loops for kernels/sampling.h, the measure of every faster version. On the calling thread.
#pragma once

#include <cstdint>

#include "kernels/sampling.h"

namespace essor::kernels::reference {

void LocalBest(const LocalBestParams& params);
void LocalLogSumExp(const float* logits, uint32_t num_rows, uint32_t width, LogSumExpPart* parts);

}  // namespace essor::kernels::reference
