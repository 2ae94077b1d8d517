// The inner loops of elementwise operations, routing and sampling: one table per ISA. Each function
// works on rows [begin, end) of its operation on the calling thread.
#pragma once

#include <cstdint>

#include "kernels/attention.h"
#include "kernels/cpu/cpu_stream.h"
#include "kernels/elementwise.h"
#include "kernels/filtered_sampling.h"
#include "kernels/routing.h"
#include "kernels/sampling.h"

namespace essor::kernels {

struct RowKernels {
  void (*rms_norm)(const RmsNormParams& params, uint64_t begin, uint64_t end);
  void (*layer_norm)(const LayerNormParams& params, uint64_t begin, uint64_t end);
  void (*row_squares)(const RowSquaresParams& params, uint64_t begin, uint64_t end);
  void (*norm_by_squares)(const NormBySquaresParams& params, uint64_t begin, uint64_t end);
  void (*qk_norm_rope)(const QkNormRopeParams& params, uint64_t begin, uint64_t end);
  void (*add)(float* y, const float* x, uint64_t begin, uint64_t end);
  void (*silu)(float* x, uint64_t begin, uint64_t end);
  void (*gate_heads)(const GateHeadsParams& params, uint64_t begin, uint64_t end);
  void (*add_gated)(const AddGatedParams& params, uint64_t begin, uint64_t end);
  void (*weighted_sum)(const WeightedSumParams& params, uint64_t begin, uint64_t end);
  // `count` floats as elements of a KV cache (common/kv_type.h): of kBFloat16, kFp8 and kInt8, the
  // last with their scale as the result.
  void (*store_bf16)(uint16_t* y, const float* x, uint32_t count);
  void (*store_fp8)(uint8_t* y, const float* x, uint32_t count);
  float (*store_int8)(int8_t* y, const float* x, uint32_t count);
  void (*route)(const RouterParams& params, uint64_t begin, uint64_t end);
  // The best candidate of columns [begin, end) of one row: `logits` is the whole row, column c is
  // the id first_id + c. As LocalBest, {-infinity, first_id + begin} where nothing wins.
  Candidate (*greedy_best)(const float* logits, uint32_t first_id, uint32_t begin, uint32_t end);
  Candidate (*sampled_best)(const float* logits, const RowSampling& sampling, uint32_t first_id,
                            uint32_t begin, uint32_t end);
  LogSumExpPart (*log_sum_exp)(const float* logits, uint32_t width);
  FilterSums (*filter_sums)(const float* logits, uint32_t width, const RowSums& row);
};

const RowKernels& PortableRowKernels();
const RowKernels& Avx2RowKernels();  // x86-64 only, like the next
const RowKernels& Avx512RowKernels();

// `isa` is not kReference.
const RowKernels& RowKernelsFor(CpuIsa isa);

}  // namespace essor::kernels
