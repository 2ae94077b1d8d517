#include "kernels/attention.h"

#include "kernels/cpu/cpu_stream.h"
#include "kernels/reference/attention.h"

namespace essor::kernels {

void WriteKv(const WriteKvParams& params, Stream& stream) {
  AsCpuStream(stream);
  reference::WriteKv(params);
}

void Attention(const AttentionParams& params, Stream& stream) {
  AsCpuStream(stream);
  reference::Attention(params);
}

}  // namespace essor::kernels
