// Divides attention among the threads of a rank: the part that grouped-query and latent attention
// have in common.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/cpu_stream.h"

namespace essor::kernels {

// On a stream whose ISA is not kReference. Asks for at most AttentionWorkspaceBytes
// (kernels/attention.h, defined beside this).
void RunAttention(const AttentionCall& call, CpuStream& cpu);

inline uint64_t NumRows(std::span<const SequenceRows> sequences) {
  uint64_t num_rows = 0;
  for (const SequenceRows& sequence : sequences) num_rows += sequence.num_rows;
  return num_rows;
}

// Calls body(row, block, slot) for rows [begin, end) of all sequences' rows counted together: where
// in the cache the row's token has its place.
template <typename Body>
void ForEachCacheSlot(std::span<const SequenceRows> sequences, uint32_t block_tokens,
                      uint64_t begin, uint64_t end, const Body& body) {
  uint64_t counted = 0;  // rows of the sequences before
  for (const SequenceRows& sequence : sequences) {
    const uint64_t first = std::max(begin, counted);
    const uint64_t last = std::min(end, counted + sequence.num_rows);
    for (uint64_t i = first; i < last; ++i) {
      const size_t row = sequence.first_row + (i - counted);
      const auto position = static_cast<uint32_t>(sequence.context_tokens + (i - counted));
      const uint32_t block = sequence.block_table[position / block_tokens];
      body(row, block, position % block_tokens);
    }
    counted += sequence.num_rows;
  }
}

// Elements to be stored from which on a fork is worth it: some 10 us of conversions and scattered
// stores on one thread.
inline constexpr uint64_t kStoredElementsForFork = 64 * 1024;

}  // namespace essor::kernels
