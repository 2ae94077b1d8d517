#include "kernels/routing.h"

#include <cstdint>

#include "common/check.h"
#include "kernels/cpu/cpu_stream.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/row_kernels.h"
#include "kernels/reference/routing.h"

namespace essor::kernels {

void Route(const RouterParams& params, Stream& stream) {
  ESSOR_CHECK(params.top_k >= 1 && params.top_k <= params.num_experts);
  CpuStream& cpu = AsCpuStream(stream);
  if (cpu.isa() == CpuIsa::kReference) return reference::Route(params);
  const auto route = RowKernelsFor(cpu.isa()).route;
  // A row of 128 experts takes about 0.2 us.
  constexpr uint64_t kLogitsForFork = 8 * 1024;
  ParallelRange(cpu.pool(), params.num_rows, kLogitsForFork / (params.num_experts + 1) + 2,
                [&](uint64_t begin, uint64_t end) { route(params, begin, end); });
}

}  // namespace essor::kernels
