#include "kernels/cpu/linear_kernels.h"

#include "common/check.h"
#include "kernels/cpu/linear_driver.h"

namespace essor::kernels {

const LinearKernels& LinearKernelsOf(CpuIsa isa) {
  ESSOR_CHECK(isa != CpuIsa::kReference);
#if defined(__x86_64__)
  if (isa == CpuIsa::kAvx512) return Avx512LinearKernels();
  if (isa == CpuIsa::kAvx2) return Avx2LinearKernels();
#endif
  return PortableLinearKernels();
}

}  // namespace essor::kernels
