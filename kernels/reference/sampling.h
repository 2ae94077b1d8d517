// Plain loops for kernels/sampling.h, filtered_sampling.h and logit_adjustment.h, the measure of
// every faster version. On the calling thread.
#pragma once

#include <cstdint>

#include "kernels/filtered_sampling.h"
#include "kernels/logit_adjustment.h"
#include "kernels/sampling.h"

namespace essor::kernels::reference {

void LocalBest(const LocalBestParams& params);
void LocalLogSumExp(const float* logits, uint32_t num_rows, uint32_t width, LogSumExpPart* parts);
void LocalTop(const LocalTopParams& params);
void LocalFilterSums(const LocalFilterSumsParams& params);
void AdjustLogits(const AdjustLogitsParams& params);

}  // namespace essor::kernels::reference
