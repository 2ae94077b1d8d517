// Plain loops for kernels/elementwise.h, the measure of every faster version: no blocking, sums in
// double. On the calling thread.
#pragma once

#include <cstdint>

#include "kernels/elementwise.h"

namespace essor::kernels::reference {

void RmsNorm(const RmsNormParams& params);
void LayerNorm(const LayerNormParams& params);
void RowSquares(const RowSquaresParams& params);
void NormBySquares(const NormBySquaresParams& params);
void Embedding(const EmbeddingParams& params);
void QkNormRope(const QkNormRopeParams& params);
void Silu(float* x, uint64_t count);
void GateHeads(const GateHeadsParams& params);
void AddGated(const AddGatedParams& params);
void WeightedSum(const WeightedSumParams& params);
void Add(float* y, const float* x, uint64_t count);

}  // namespace essor::kernels::reference
