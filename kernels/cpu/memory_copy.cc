#include "kernels/memory_copy.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "kernels/cpu/cpu_stream.h"
#include "kernels/cpu/parallel.h"

namespace essor::kernels {
namespace {

// From here on sharing the work is worth waking threads: some 10 us of copying on one.
constexpr uint64_t kBytesForFork = 128 << 10;
constexpr uint64_t kLineBytes = 64;

// Bytes [begin, end) of all pieces counted together.
void CopyRange(std::span<const CopyPiece> pieces, uint64_t begin, uint64_t end) {
  uint64_t counted = 0;  // bytes of the pieces before
  for (const CopyPiece& piece : pieces) {
    const uint64_t first = std::max(begin, counted);
    const uint64_t last = std::min(end, counted + piece.bytes);
    if (first < last) {
      std::memcpy(piece.to + (first - counted), piece.from + (first - counted), last - first);
    }
    counted += piece.bytes;
  }
}

}  // namespace

void CopyMemory(std::span<const CopyPiece> pieces, Stream& stream) {
  uint64_t bytes = 0;
  for (const CopyPiece& piece : pieces) bytes += piece.bytes;
  const uint64_t lines = (bytes + kLineBytes - 1) / kLineBytes;
  ParallelRange(AsCpuStream(stream).pool(), lines, kBytesForFork / kLineBytes,
                [&](uint64_t begin, uint64_t end) {
                  CopyRange(pieces, begin * kLineBytes, std::min(end * kLineBytes, bytes));
                });
}

}  // namespace essor::kernels
