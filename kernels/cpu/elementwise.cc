#include "kernels/elementwise.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "kernels/cpu/cpu_stream.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/row_kernels.h"
#include "kernels/reference/elementwise.h"

namespace essor::kernels {
namespace {

// Elements from which sharing the work among the threads is worth waking them: some 5 us of work on
// one thread, against about 1 us for a fork and a join, and more where members sleep.
constexpr uint64_t kElementsForFork = 64 * 1024;

uint64_t RowsForFork(uint64_t row_elements) { return kElementsForFork / (row_elements + 1) + 2; }

}  // namespace

void RmsNorm(const RmsNormParams& params, Stream& stream) {
  CpuStream& cpu = AsCpuStream(stream);
  if (cpu.isa() == CpuIsa::kReference) return reference::RmsNorm(params);
  const auto rms_norm = RowKernelsFor(cpu.isa()).rms_norm;
  ParallelRange(cpu.pool(), params.num_rows, RowsForFork(params.width),
                [&](uint64_t begin, uint64_t end) { rms_norm(params, begin, end); });
}

void LayerNorm(const LayerNormParams& params, Stream& stream) {
  CpuStream& cpu = AsCpuStream(stream);
  if (cpu.isa() == CpuIsa::kReference) return reference::LayerNorm(params);
  const auto layer_norm = RowKernelsFor(cpu.isa()).layer_norm;
  ParallelRange(cpu.pool(), params.num_rows, RowsForFork(params.width),
                [&](uint64_t begin, uint64_t end) { layer_norm(params, begin, end); });
}

void RowSquares(const RowSquaresParams& params, Stream& stream) {
  CpuStream& cpu = AsCpuStream(stream);
  if (cpu.isa() == CpuIsa::kReference) return reference::RowSquares(params);
  const auto row_squares = RowKernelsFor(cpu.isa()).row_squares;
  ParallelRange(cpu.pool(), params.num_rows, RowsForFork(params.width),
                [&](uint64_t begin, uint64_t end) { row_squares(params, begin, end); });
}

void NormBySquares(const NormBySquaresParams& params, Stream& stream) {
  CpuStream& cpu = AsCpuStream(stream);
  if (cpu.isa() == CpuIsa::kReference) return reference::NormBySquares(params);
  const auto norm_by_squares = RowKernelsFor(cpu.isa()).norm_by_squares;
  ParallelRange(cpu.pool(), params.num_rows, RowsForFork(params.width),
                [&](uint64_t begin, uint64_t end) { norm_by_squares(params, begin, end); });
}

void Embedding(const EmbeddingParams& params, Stream& stream) {
  CpuStream& cpu = AsCpuStream(stream);
  if (cpu.isa() == CpuIsa::kReference) return reference::Embedding(params);
  ParallelRange(cpu.pool(), params.num_rows, RowsForFork(params.table.k),
                [&](uint64_t begin, uint64_t end) {
                  EmbeddingParams part = params;
                  part.token_ids += begin;
                  part.num_rows = static_cast<uint32_t>(end - begin);
                  part.y += begin * params.table.k;
                  reference::Embedding(part);  // a copy: there is nothing to do better
                });
}

void QkNormRope(const QkNormRopeParams& params, Stream& stream) {
  CpuStream& cpu = AsCpuStream(stream);
  if (cpu.isa() == CpuIsa::kReference) return reference::QkNormRope(params);
  const auto qk_norm_rope = RowKernelsFor(cpu.isa()).qk_norm_rope;
  const uint64_t row_elements =
      static_cast<uint64_t>(params.num_heads + params.num_kv_heads) * params.head_dim;
  ParallelRange(cpu.pool(), params.num_rows, RowsForFork(row_elements),
                [&](uint64_t begin, uint64_t end) { qk_norm_rope(params, begin, end); });
}

void Add(float* y, const float* x, uint64_t count, Stream& stream) {
  CpuStream& cpu = AsCpuStream(stream);
  if (cpu.isa() == CpuIsa::kReference) return reference::Add(y, x, count);
  const auto add = RowKernelsFor(cpu.isa()).add;
  ParallelRange(cpu.pool(), count, kElementsForFork,
                [&](uint64_t begin, uint64_t end) { add(y, x, begin, end); });
}

void Silu(float* x, uint64_t count, Stream& stream) {
  CpuStream& cpu = AsCpuStream(stream);
  if (cpu.isa() == CpuIsa::kReference) return reference::Silu(x, count);
  const auto silu = RowKernelsFor(cpu.isa()).silu;
  ParallelRange(cpu.pool(), count, kElementsForFork,
                [&](uint64_t begin, uint64_t end) { silu(x, begin, end); });
}

void GateHeads(const GateHeadsParams& params, Stream& stream) {
  CpuStream& cpu = AsCpuStream(stream);
  if (cpu.isa() == CpuIsa::kReference) return reference::GateHeads(params);
  const auto gate_heads = RowKernelsFor(cpu.isa()).gate_heads;
  ParallelRange(cpu.pool(), params.num_rows,
                RowsForFork(uint64_t{params.num_heads} * params.head_dim),
                [&](uint64_t begin, uint64_t end) { gate_heads(params, begin, end); });
}

void AddGated(const AddGatedParams& params, Stream& stream) {
  CpuStream& cpu = AsCpuStream(stream);
  if (cpu.isa() == CpuIsa::kReference) return reference::AddGated(params);
  const auto add_gated = RowKernelsFor(cpu.isa()).add_gated;
  ParallelRange(cpu.pool(), params.num_rows, RowsForFork(params.width),
                [&](uint64_t begin, uint64_t end) { add_gated(params, begin, end); });
}

void WeightedSum(const WeightedSumParams& params, Stream& stream) {
  CpuStream& cpu = AsCpuStream(stream);
  if (cpu.isa() == CpuIsa::kReference) return reference::WeightedSum(params);
  const auto sum = RowKernelsFor(cpu.isa()).weighted_sum;
  ParallelRange(cpu.pool(), params.count, kElementsForFork,
                [&](uint64_t begin, uint64_t end) { sum(params, begin, end); });
}

}  // namespace essor::kernels
