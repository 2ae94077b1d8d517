#include "kernels/cpu/cpu_stream.h"
#include "kernels/reference/sampling.h"
#include "kernels/sampling.h"

namespace essor::kernels {

void LocalBest(const LocalBestParams& params, Stream& stream) {
  AsCpuStream(stream);
  reference::LocalBest(params);
}

void LocalLogSumExp(const float* logits, uint32_t num_rows, uint32_t width, LogSumExpPart* parts,
                    Stream& stream) {
  AsCpuStream(stream);
  reference::LocalLogSumExp(logits, num_rows, width, parts);
}

}  // namespace essor::kernels
