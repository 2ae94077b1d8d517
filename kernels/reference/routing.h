// Plain loops for kernels/routing.h, the measure of every faster version. On the calling thread.
#pragma once

#include "kernels/routing.h"

namespace essor::kernels::reference {

void Route(const RouterParams& params);

}  // namespace essor::kernels::reference
