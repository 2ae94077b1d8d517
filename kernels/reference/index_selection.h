// Plain loops for kernels/index_selection.h, the measure of every faster version: sums in double, a
// full sort. On the calling thread.
#pragma once

#include "kernels/index_selection.h"

namespace essor::kernels::reference {

void WriteIndexKeys(const WriteIndexKeysParams& params);
void SelectPositions(const SelectPositionsParams& params);

}  // namespace essor::kernels::reference
