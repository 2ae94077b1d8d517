#include "kernels/routing.h"

#include "kernels/cpu/cpu_stream.h"
#include "kernels/reference/routing.h"

namespace essor::kernels {

void Route(const RouterParams& params, Stream& stream) {
  AsCpuStream(stream);
  reference::Route(params);
}

}  // namespace essor::kernels
