// What the drivers of matrix products share: which table of kernels, rows into panels, and the
// division of tiles among threads.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "kernels/cpu/cpu_stream.h"
#include "kernels/cpu/linear_kernels.h"
#include "kernels/cpu/pack_layout.h"
#include "kernels/cpu/parallel.h"

namespace essor::kernels {

// `isa` is available and not kReference.
const LinearKernels& LinearKernelsOf(CpuIsa isa);

struct RowRange {
  uint32_t first;
  uint32_t count;
};

// Rows [0, rows) in the fewest panels of at most max_rows, of nearly equal size.
class PanelSplit {
 public:
  PanelSplit(uint32_t rows, uint32_t max_rows)
      : rows_(rows), num_panels_((rows + max_rows - 1) / max_rows) {}
  uint32_t num_panels() const { return num_panels_; }
  RowRange Panel(uint32_t i) const {
    const IndexRange range = SplitRange(rows_, num_panels_, i);
    return {static_cast<uint32_t>(range.begin), static_cast<uint32_t>(range.end - range.begin)};
  }

 private:
  uint32_t rows_;
  uint32_t num_panels_;
};

// Calls body(thread, unit) for every unit in [0, num_units), on the caller alone where the pool has
// one member or there is but one unit. Each member begins with a contiguous range of its own, so
// that it streams through the weights, and then helps the others: which member runs a unit is not
// defined, and no result may depend on it.
template <typename Body>
void ParallelUnits(ThreadPool& pool, uint32_t num_units, const Body& body) {
  struct alignas(64) Cursor {
    std::atomic<uint32_t> next;
    uint32_t end;
  };
  constexpr uint32_t kMaxRanges = 64;  // members beyond that only help
  const uint32_t num_ranges = std::min(pool.num_threads(), kMaxRanges);
  if (num_ranges == 1 || num_units <= 1) {
    for (uint32_t unit = 0; unit < num_units; ++unit) body(0u, unit);
    return;
  }
  std::array<Cursor, kMaxRanges> cursors;
  for (uint32_t i = 0; i < num_ranges; ++i) {
    const IndexRange range = SplitRange(num_units, num_ranges, i);
    cursors[i].next.store(static_cast<uint32_t>(range.begin), std::memory_order_relaxed);
    cursors[i].end = static_cast<uint32_t>(range.end);
  }
  pool.Run([&](uint32_t thread) {
    for (uint32_t i = 0; i < num_ranges; ++i) {
      Cursor& cursor = cursors[(thread + i) % num_ranges];
      for (;;) {
        const uint32_t unit = cursor.next.fetch_add(1, std::memory_order_relaxed);
        if (unit >= cursor.end) break;
        body(thread, unit);
      }
    }
  });
}

// Activations below this many are packed by the caller: a fork costs more.
inline constexpr uint64_t kPackFork = 16 * 1024;

// Tiles that one unit runs over all panels, so that a panel is read once for all of them: as many
// as half of a small L2 holds beside a panel, but enough units to balance the threads.
inline uint32_t TilesPerUnit(uint32_t num_tiles, size_t tile_bytes, uint32_t num_threads,
                             uint32_t num_panels) {
  if (num_panels == 1) return 1;
  constexpr size_t kCacheBytes = 384 * 1024;
  const uint32_t fitting = static_cast<uint32_t>(kCacheBytes / std::max<size_t>(tile_bytes, 1));
  const uint32_t balanced = num_tiles / (num_threads * 8);
  return std::clamp(std::min(fitting, balanced), 1u, 16u);
}

// What to fetch while panel `panel` of `num_panels` is multiplied with `tile`. All but the first
// panel find the tile in the cache: bring `next`, the tile to come, a part with each panel, so that
// memory works all the time. With one panel the tile itself streams in, which the processor's own
// prefetching does better alone; but not for kFp8, whose decoding takes so many instructions that
// too few loads are under way at a time (measured: 8.8 GB/s without and 12.5 with the read-ahead).
inline Prefetch PrefetchOf(WeightFormat format, const std::byte* tile, const std::byte* next,
                           size_t tile_bytes, uint32_t panel, uint32_t num_panels) {
  constexpr size_t kAheadBytes = 4096;
  if (num_panels == 1 && format == WeightFormat::kFp8) return {tile + kAheadBytes, 128};
  // A tile that fills the cache would only push itself out.
  constexpr size_t kMaxBytes = 512 * 1024;
  if (num_panels == 1 || tile_bytes > kMaxBytes) return {next, 0};
  // Rounded up: a few bytes are asked for twice rather than not at all.
  return {next + panel * (tile_bytes / num_panels), (128 + num_panels - 1) / num_panels};
}

// Columns of a tile, a multiple of 128 and so of every block of scales, that take a quarter of a
// small L2.
inline uint32_t ChunkColumns(WeightFormat format) {
  constexpr size_t kChunkBytes = 256 * 1024;
  constexpr uint32_t kGranule = kFp8BlockColumns;
  return static_cast<uint32_t>(kChunkBytes / TileBytes(format, kGranule)) * kGranule;
}

inline size_t AlignUp(size_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace essor::kernels
