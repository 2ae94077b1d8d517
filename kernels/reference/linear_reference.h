// The operations of linear.h as plain loops over unpacked weights, on the calling thread, summed in
// double: what the fast kernels are compared with.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/expert_rows.h"
#include "kernels/linear.h"

namespace essor::kernels::reference {

void Linear(const LinearParams& params);
void GatedFfn(const GatedFfnParams& params);
void MoeFfn(const MoeFfnParams& params);
void MoeExpertRows(const MoeFfnParams& params);
void CombineExperts(const CombineExpertsParams& params);

// x as a product with weights of `format` sees it: unchanged, rounded to bfloat16, or quantised to
// int8 per 32 columns and multiplied out again.
void RoundActivations(WeightFormat format, std::span<const float> x, std::span<float> out);
// x as the sum of two bfloat16 values, as LinearParams::split_x takes it.
void SplitToBFloat16(std::span<const float> x, std::span<float> out);

}  // namespace essor::kernels::reference
