#include "kernels/linear_attention.h"

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "common/check.h"
#include "kernels/cpu/attention_driver.h"
#include "kernels/cpu/cpu_stream.h"
#include "kernels/cpu/linear_attention_kernels.h"
#include "kernels/cpu/parallel.h"
#include "kernels/reference/linear_attention.h"

namespace essor::kernels {
namespace {

// State elements from which on a fork is worth it: some 10 us of reading and writing on one thread.
constexpr uint64_t kStateElementsForFork = 64 * 1024;

const LinearAttentionKernels& KernelsFor(CpuIsa isa) {
  ESSOR_CHECK(isa != CpuIsa::kReference && CpuIsaAvailable(isa));
#if defined(__x86_64__)
  if (isa == CpuIsa::kAvx512) return Avx512LinearAttentionKernels();
  if (isa == CpuIsa::kAvx2) return Avx2LinearAttentionKernels();
#endif
  return PortableLinearAttentionKernels();
}

}  // namespace

void LinearAttention(const LinearAttentionParams& params, Stream& stream) {
  ESSOR_CHECK(params.num_key_heads > 0 && params.num_heads % params.num_key_heads == 0);
  CpuStream& cpu = AsCpuStream(stream);
  if (cpu.isa() == CpuIsa::kReference) return reference::LinearAttention(params);
  const auto run = KernelsFor(cpu.isa()).run;
  const uint64_t parts = (params.value_dim + kStateColumns - 1) / kStateColumns;
  const uint64_t parts_of_sequence = parts * params.num_heads;
  const uint64_t num_tasks = parts_of_sequence * params.sequences.size();
  const auto run_task = [&](uint64_t task) {
    const uint64_t part = task % parts_of_sequence;
    run(params, params.sequences[task / parts_of_sequence], static_cast<uint32_t>(part / parts),
        static_cast<uint32_t>(part % parts) * kStateColumns);
  };
  const uint64_t elements =
      NumRows(params.sequences) * params.num_heads * params.key_dim * params.value_dim;
  if (cpu.pool().num_threads() == 1 || elements < kStateElementsForFork) {
    for (uint64_t task = 0; task < num_tasks; ++task) run_task(task);
    return;
  }
  std::atomic<uint64_t> next{0};
  cpu.pool().Run([&](uint32_t) {
    for (uint64_t task = next.fetch_add(1, std::memory_order_relaxed); task < num_tasks;
         task = next.fetch_add(1, std::memory_order_relaxed)) {
      run_task(task);
    }
  });
}

void CausalConvolution(const CausalConvolutionParams& params, Stream& stream) {
  ESSOR_CHECK(params.taps >= 1 && params.taps <= kConvolutionTapsMax);
  ESSOR_CHECK(params.state_width >= uint64_t{params.num_heads} * params.dim);
  CpuStream& cpu = AsCpuStream(stream);
  if (cpu.isa() == CpuIsa::kReference) return reference::CausalConvolution(params);
  const auto convolve = KernelsFor(cpu.isa()).convolve;
  const uint64_t channels_of_row = uint64_t{params.num_heads} * params.dim;
  const uint64_t num_tasks = params.sequences.size() * params.num_heads;
  // Heads of sequences that together are worth a fork.
  const uint64_t rows = NumRows(params.sequences);
  const uint64_t elements = rows * channels_of_row * params.taps;
  const uint64_t tasks_for_fork = elements < kStateElementsForFork ? num_tasks + 1 : 0;
  ParallelRange(cpu.pool(), num_tasks, tasks_for_fork, [&](uint64_t begin, uint64_t end) {
    for (uint64_t task = begin; task < end; ++task) {
      const auto first = static_cast<uint32_t>(task % params.num_heads) * params.dim;
      convolve(params, params.sequences[task / params.num_heads], first, first + params.dim);
    }
  });
}

void DeltaGates(const DeltaGatesParams& params, Stream& stream) {
  ESSOR_CHECK(params.num_key_heads > 0 && params.num_heads % params.num_key_heads == 0);
  CpuStream& cpu = AsCpuStream(stream);
  if (cpu.isa() == CpuIsa::kReference) return reference::DeltaGates(params);
  // Five exponentials and logarithms in double precision a head, some 200 ns.
  constexpr uint64_t kHeadsForFork = 64;
  ParallelRange(cpu.pool(), params.num_rows, kHeadsForFork / params.num_heads + 1,
                [&](uint64_t begin, uint64_t end) {
                  DeltaGatesParams part = params;
                  part.gates += begin * 2 * params.num_heads;
                  part.num_rows = static_cast<uint32_t>(end - begin);
                  part.decays += begin * params.num_heads;
                  part.write_gates += begin * params.num_heads;
                  reference::DeltaGates(part);
                });
}

}  // namespace essor::kernels
