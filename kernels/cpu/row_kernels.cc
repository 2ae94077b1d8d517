#include "kernels/cpu/row_kernels.h"

#include "common/check.h"

namespace essor::kernels {

const RowKernels& RowKernelsFor(CpuIsa isa) {
  ESSOR_CHECK(isa != CpuIsa::kReference && CpuIsaAvailable(isa));
#if defined(__x86_64__)
  if (isa == CpuIsa::kAvx512) return Avx512RowKernels();
  if (isa == CpuIsa::kAvx2) return Avx2RowKernels();
#endif
  return PortableRowKernels();
}

}  // namespace essor::kernels
