#include "kernels/index_selection.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>

#include "common/check.h"
#include "kernels/cpu/attention_driver.h"
#include "kernels/cpu/cpu_stream.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/row_kernels.h"
#include "kernels/cpu/store_vector.h"
#include "kernels/reference/index_selection.h"

namespace essor::kernels {
namespace {

// Rows whose scores are in memory at a time, and how many scores: 16 MB, or one row of any length.
constexpr uint32_t kGroupRows = 64;
constexpr uint64_t kGroupScores = 4 << 20;

// Positions of one task, a multiple of kKvTile: some 0.2 ms of work for DeepSeek's 64 heads of 128.
constexpr uint32_t kTaskPositions = 1024;

// A row that sees more than K positions.
struct LongRow {
  const SequenceRows* sequence;
  size_t row;
  uint32_t num_positions;
  float* scores;  // [num_positions]
};

struct Group {
  std::array<LongRow, kGroupRows> rows;
  uint32_t num_rows = 0;
  uint64_t num_scores = 0;
  uint32_t longest = 0;
};

bool Fits(const Group& group, uint32_t num_positions) {
  return group.num_rows == 0 ||
         (group.num_rows < kGroupRows && group.num_scores + num_positions <= kGroupScores);
}

// Calls body(group) for groups of long rows, in order; their scores have no place yet.
template <typename Body>
void ForEachGroup(const SelectPositionsParams& params, const Body& body) {
  Group group;
  for (const SequenceRows& sequence : params.sequences) {
    for (uint32_t i = 0; i < sequence.num_rows; ++i) {
      const uint32_t num_positions = sequence.context_tokens + i + 1;
      if (num_positions <= params.top_k) continue;
      if (!Fits(group, num_positions)) {
        body(group);
        group = Group();
      }
      group.rows[group.num_rows++] = {&sequence, size_t{sequence.first_row} + i, num_positions,
                                      nullptr};
      group.num_scores += num_positions;
      group.longest = std::max(group.longest, num_positions);
    }
  }
  if (group.num_rows > 0) body(group);
}

AttentionCall CallOf(const SelectPositionsParams& params) {
  AttentionCall call{};
  call.values = params.cache.data;
  call.type = params.cache.type;
  call.block_bytes = params.cache.block_bytes();
  call.value_stride = params.cache.dim;
  call.block_tokens = params.cache.block_tokens;
  call.num_kv_heads = 1;
  call.key_dim = params.cache.dim;
  return call;
}

// All scores of the group. Tasks are chunks of rows; those behind the end of a shorter row are
// empty.
void ScoreGroup(const SelectPositionsParams& params, const Group& group, float* scratch,
                CpuStream& cpu) {
  const AttentionCall call = CallOf(params);
  const auto index_scores = AttentionKernelsFor(cpu.isa()).index_scores;
  const uint64_t chunks = (group.longest + kTaskPositions - 1) / kTaskPositions;
  const uint64_t num_tasks = chunks * group.num_rows;
  std::atomic<uint64_t> next{0};
  const auto work = [&](uint32_t thread) {
    for (uint64_t i = next.fetch_add(1, std::memory_order_relaxed); i < num_tasks;
         i = next.fetch_add(1, std::memory_order_relaxed)) {
      const LongRow& row = group.rows[i / chunks];
      const auto begin = static_cast<uint32_t>(i % chunks * kTaskPositions);
      if (begin >= row.num_positions) continue;
      index_scores(call,
                   {.sequence = row.sequence,
                    .queries = params.q + row.row * params.num_heads * params.cache.dim,
                    .weights = params.weights + row.row * params.num_heads,
                    .num_heads = params.num_heads,
                    .begin = begin,
                    .end = std::min(row.num_positions, begin + kTaskPositions),
                    .scores = row.scores + begin},
                   scratch + thread * IndexScratchFloats(params.cache.dim));
    }
  };
  // From some 10 us of work on.
  constexpr uint64_t kProductsForFork = 512 * 1024;
  const uint64_t products = group.num_scores * params.num_heads * params.cache.dim;
  if (cpu.pool().num_threads() > 1 && products >= kProductsForFork) {
    cpu.pool().Run(work);
  } else {
    work(0);
  }
}

// A number that is larger for a higher score: the bits of a float, with the order of negative ones
// turned round. 0 for NaN; both zeros are equal.
uint32_t Rank(float score) {
  if (std::isnan(score)) return 0;
  const uint32_t bits = std::bit_cast<uint32_t>(score + 0.0f);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

// The rank of the K-th best score, and how many of the scores of this rank are among the K best.
struct Threshold {
  uint32_t rank;
  uint32_t num_equal;
};

// Digit by digit, highest first: counting which values the scores have there tells the digit of the
// K-th best.
Threshold FindThreshold(const LongRow& row, uint32_t top_k) {
  constexpr uint32_t kDigitBits = 8;
  uint32_t known = 0;  // the digits found so far
  uint32_t rest = top_k;
  for (uint32_t shift = 32; shift > 0;) {
    shift -= kDigitBits;
    std::array<uint32_t, 1u << kDigitBits> counts{};
    for (uint32_t p = 0; p < row.num_positions; ++p) {
      const uint64_t digits = Rank(row.scores[p]);
      if (digits >> (shift + kDigitBits) == uint64_t{known} >> (shift + kDigitBits)) {
        ++counts[digits >> shift & (counts.size() - 1)];
      }
    }
    uint32_t digit = counts.size() - 1;
    for (; counts[digit] < rest; --digit) rest -= counts[digit];
    known |= digit << shift;
  }
  return {known, rest};
}

void SelectOfRow(const SelectPositionsParams& params, const LongRow& row) {
  const Threshold threshold = FindThreshold(row, params.top_k);
  const uint32_t block_tokens = params.cache.block_tokens;
  uint32_t equal_left = threshold.num_equal;
  uint32_t* slot = params.slots + row.row * params.top_k;
  for (uint32_t p = 0; p < row.num_positions; ++p) {
    const uint32_t rank = Rank(row.scores[p]);
    if (rank < threshold.rank || (rank == threshold.rank && equal_left == 0)) continue;
    if (rank == threshold.rank) --equal_left;
    *slot++ = row.sequence->block_table[p / block_tokens] * block_tokens + p % block_tokens;
  }
  ESSOR_CHECK(slot == params.slots + (row.row + 1) * params.top_k);
}

size_t RoundUp(size_t floats) { return (floats + 15) / 16 * 16; }

}  // namespace

void WriteIndexKeys(const WriteIndexKeysParams& params, Stream& stream) {
  ESSOR_CHECK(!IsQuantised(params.cache.type));
  CpuStream& cpu = AsCpuStream(stream);
  if (cpu.isa() == CpuIsa::kReference) return reference::WriteIndexKeys(params);
  const RowKernels& kernels = RowKernelsFor(cpu.isa());
  const PagedIndexKeys& cache = params.cache;
  const auto store = [&](size_t row, uint32_t block, uint32_t slot) {
    const size_t token = size_t{block} * cache.block_tokens + slot;
    StoreVector(kernels, cache.type, {params.keys + row * cache.dim, cache.dim},
                static_cast<std::byte*>(cache.data) + token * KvVectorBytes(cache.type, cache.dim),
                nullptr);
  };
  ParallelRange(cpu.pool(), NumRows(params.sequences), kStoredElementsForFork / (cache.dim + 1) + 2,
                [&](uint64_t begin, uint64_t end) {
                  ForEachCacheSlot(params.sequences, cache.block_tokens, begin, end, store);
                });
}

void SelectPositions(const SelectPositionsParams& params, Stream& stream) {
  ESSOR_CHECK(params.top_k > 0 && !IsQuantised(params.cache.type));
  CpuStream& cpu = AsCpuStream(stream);
  if (cpu.isa() == CpuIsa::kReference) return reference::SelectPositions(params);
  const size_t scratch_floats = cpu.pool().num_threads() * IndexScratchFloats(params.cache.dim);
  ForEachGroup(params, [&](Group& group) {
    const size_t floats = RoundUp(group.num_scores) + scratch_floats;
    float* scores = reinterpret_cast<float*>(cpu.Workspace(floats * sizeof(float)));
    float* scratch = scores + RoundUp(group.num_scores);
    for (LongRow& row : std::span(group.rows).first(group.num_rows)) {
      row.scores = scores;
      scores += row.num_positions;
    }
    ScoreGroup(params, group, scratch, cpu);
    // Five passes over a row's scores; some 10 us for 2000 of them.
    ParallelRange(cpu.pool(), group.num_rows, 2, [&](uint64_t begin, uint64_t end) {
      for (uint64_t i = begin; i < end; ++i) SelectOfRow(params, group.rows[i]);
    });
  });
}

size_t IndexWorkspaceBytes(const IndexLimits& limits, uint32_t num_threads) {
  const uint64_t rows = std::min<uint64_t>(limits.max_rows, kGroupRows);
  const uint64_t scores =
      std::min(rows * limits.max_positions, std::max<uint64_t>(kGroupScores, limits.max_positions));
  return (RoundUp(scores) + num_threads * IndexScratchFloats(limits.dim)) * sizeof(float);
}

}  // namespace essor::kernels
