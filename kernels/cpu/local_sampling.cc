#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "common/check.h"
#include "kernels/cpu/cpu_stream.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/row_kernels.h"
#include "kernels/filtered_sampling.h"
#include "kernels/gumbel.h"
#include "kernels/logit_adjustment.h"
#include "kernels/reference/sampling.h"
#include "kernels/sampling.h"

namespace essor::kernels {
namespace {

// The best of columns [begin, end) of row `row`.
Candidate BestOfColumns(const RowKernels& kernels, const LocalBestParams& params, uint64_t row,
                        const IndexRange& columns) {
  const float* logits = params.logits + row * params.width;
  const auto begin = static_cast<uint32_t>(columns.begin);
  const auto end = static_cast<uint32_t>(columns.end);
  const RowSampling& sampling = params.sampling[row];
  if (sampling.temperature > 0) {
    return kernels.sampled_best(logits, sampling, params.first_id, begin, end);
  }
  return kernels.greedy_best(logits, params.first_id, begin, end);
}

// Fewer rows than threads: each thread takes a range of columns of every row.
void LocalBestByColumns(const RowKernels& kernels, const LocalBestParams& params,
                        CpuStream& stream) {
  const uint32_t num_threads = stream.pool().num_threads();
  const size_t num_candidates = static_cast<size_t>(params.num_rows) * num_threads;
  // [R, threads]
  auto* parts = reinterpret_cast<Candidate*>(stream.Workspace(num_candidates * sizeof(Candidate)));
  stream.pool().Run([&](uint32_t thread) {
    const IndexRange columns = SplitRange(params.width, num_threads, thread, kGumbelGroup);
    for (uint32_t r = 0; r < params.num_rows; ++r) {
      parts[static_cast<size_t>(r) * num_threads + thread] =
          BestOfColumns(kernels, params, r, columns);
    }
  });
  for (uint32_t r = 0; r < params.num_rows; ++r) {
    params.best[r] = MergeBest({parts + static_cast<size_t>(r) * num_threads, num_threads});
  }
}

void TopOfRow(const LocalTopParams& params, const RowTop& row) {
  std::array<Candidate, 2 * kMaxTop> scratch;
  const std::span<const float> logits(params.logits + static_cast<size_t>(row.row) * params.width,
                                      params.width);
  const size_t count = CollectBest(logits, params.first_id, row.temperature, row.count, scratch);
  std::sort(scratch.begin(), scratch.begin() + count, Better);
  std::copy_n(scratch.begin(), count, row.best);
  std::fill(row.best + count, row.best + row.count,
            Candidate{-std::numeric_limits<float>::infinity(), 0});
}

// Touches only the columns that change.
void AdjustRow(float* logits, const RowAdjustment& row) {
  for (const auto& [column, bias] : row.biases) logits[column] += bias;
  for (const uint32_t column : row.marked) {
    float& logit = logits[column];
    logit = logit > 0 ? logit / row.repetition_penalty : logit * row.repetition_penalty;
    const uint32_t count = row.marks[column] / 2;
    if (count == 0) continue;
    const float frequency = static_cast<float>(count) * row.frequency_penalty;
    logit -= frequency;
    logit -= row.presence_penalty;
  }
  for (const uint32_t column : row.blocked) {
    logits[column] = -std::numeric_limits<float>::infinity();
  }
}

}  // namespace

void LocalBest(const LocalBestParams& params, Stream& stream) {
  CpuStream& cpu = AsCpuStream(stream);
  if (cpu.isa() == CpuIsa::kReference) return reference::LocalBest(params);
  const RowKernels& kernels = RowKernelsFor(cpu.isa());
  // About 5 us of greedy search on one thread.
  constexpr uint64_t kLogitsForFork = 32 * 1024;
  const uint32_t num_threads = cpu.pool().num_threads();
  const uint64_t num_logits = static_cast<uint64_t>(params.num_rows) * params.width;
  if (num_threads > 1 && params.num_rows < num_threads && num_logits >= kLogitsForFork) {
    LocalBestByColumns(kernels, params, cpu);
    return;
  }
  ParallelRange(cpu.pool(), params.num_rows, kLogitsForFork / (params.width + 1) + 2,
                [&](uint64_t begin, uint64_t end) {
                  for (uint64_t r = begin; r < end; ++r) {
                    params.best[r] = BestOfColumns(kernels, params, r, {0, params.width});
                  }
                });
}

void LocalLogSumExp(const float* logits, uint32_t num_rows, uint32_t width, LogSumExpPart* parts,
                    Stream& stream) {
  CpuStream& cpu = AsCpuStream(stream);
  if (cpu.isa() == CpuIsa::kReference) {
    return reference::LocalLogSumExp(logits, num_rows, width, parts);
  }
  const auto log_sum_exp = RowKernelsFor(cpu.isa()).log_sum_exp;
  constexpr uint64_t kLogitsForFork = 16 * 1024;
  ParallelRange(cpu.pool(), num_rows, kLogitsForFork / (width + 1) + 2,
                [&](uint64_t begin, uint64_t end) {
                  for (uint64_t r = begin; r < end; ++r) {
                    parts[r] = log_sum_exp(logits + r * width, width);
                  }
                });
}

void LocalTop(const LocalTopParams& params, Stream& stream) {
  CpuStream& cpu = AsCpuStream(stream);
  for (const RowTop& row : params.rows) ESSOR_CHECK(row.count <= kMaxTop);
  if (cpu.isa() == CpuIsa::kReference) return reference::LocalTop(params);
  constexpr uint64_t kLogitsForFork = 32 * 1024;
  ParallelRange(cpu.pool(), params.rows.size(), kLogitsForFork / (params.width + 1) + 2,
                [&](uint64_t begin, uint64_t end) {
                  for (uint64_t r = begin; r < end; ++r) TopOfRow(params, params.rows[r]);
                });
}

void LocalFilterSums(const LocalFilterSumsParams& params, Stream& stream) {
  CpuStream& cpu = AsCpuStream(stream);
  if (cpu.isa() == CpuIsa::kReference) return reference::LocalFilterSums(params);
  const auto filter_sums = RowKernelsFor(cpu.isa()).filter_sums;
  constexpr uint64_t kLogitsForFork = 16 * 1024;
  ParallelRange(cpu.pool(), params.rows.size(), kLogitsForFork / (params.width + 1) + 2,
                [&](uint64_t begin, uint64_t end) {
                  for (uint64_t r = begin; r < end; ++r) {
                    const RowSums& row = params.rows[r];
                    const float* logits =
                        params.logits + static_cast<size_t>(row.row) * params.width;
                    *row.sums = filter_sums(logits, params.width, row);
                  }
                });
}

void AdjustLogits(const AdjustLogitsParams& params, Stream& stream) {
  CpuStream& cpu = AsCpuStream(stream);
  if (cpu.isa() == CpuIsa::kReference) return reference::AdjustLogits(params);
  for (const RowAdjustment& row : params.rows) {
    AdjustRow(params.logits + static_cast<size_t>(row.row) * params.width, row);
  }
}

}  // namespace essor::kernels
