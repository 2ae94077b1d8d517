#include "kernels/elementwise.h"

#include "kernels/cpu/cpu_stream.h"
#include "kernels/reference/elementwise.h"

namespace essor::kernels {

void RmsNorm(const RmsNormParams& params, Stream& stream) {
  AsCpuStream(stream);
  reference::RmsNorm(params);
}

void Embedding(const EmbeddingParams& params, Stream& stream) {
  AsCpuStream(stream);
  reference::Embedding(params);
}

void QkNormRope(const QkNormRopeParams& params, Stream& stream) {
  AsCpuStream(stream);
  reference::QkNormRope(params);
}

void Add(float* y, const float* x, uint64_t count, Stream& stream) {
  AsCpuStream(stream);
  reference::Add(y, x, count);
}

}  // namespace essor::kernels
