#include "kernels/cpu/filter_sums_inl.h"
#include "kernels/cpu/gumbel_inl.h"
#include "kernels/cpu/row_kernels_inl.h"
#include "kernels/cpu/store_rows_inl.h"

namespace essor::kernels {

const RowKernels& PortableRowKernels() {
  static constexpr RowKernels kKernels = {
      .rms_norm = RmsNormRows,
      .layer_norm = LayerNormRows,
      .row_squares = RowSquaresRows,
      .norm_by_squares = NormBySquaresRows,
      .qk_norm_rope = QkNormRopeRows,
      .add = AddRange,
      .silu = SiluRange,
      .gate_heads = GateHeadRows,
      .add_gated = AddGatedRows,
      .weighted_sum = WeightedSumRange,
      .store_bf16 = StoreBf16Row,
      .store_fp8 = StoreFp8Row,
      .store_int8 = StoreInt8Row,
      .route = RouteRows,
      .greedy_best = GreedyBest,
      .sampled_best = SampledBest,
      .log_sum_exp = LogSumExpRow,
      .filter_sums = FilterSumsOfRow,
  };
  return kKernels;
}

}  // namespace essor::kernels
