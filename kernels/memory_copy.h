// Copies within a device's memory.
#pragma once

#include <cstddef>
#include <span>

#include "kernels/stream.h"

namespace essor::kernels {

// `bytes` bytes; `from` and `to` of all pieces of a call do not overlap.
struct CopyPiece {
  const std::byte* from;
  std::byte* to;
  size_t bytes;
};
void CopyMemory(std::span<const CopyPiece> pieces, Stream& stream);

}  // namespace essor::kernels
