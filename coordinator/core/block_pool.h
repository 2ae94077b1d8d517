// The free KV blocks of one kind.
#pragma once

#include <cstdint>
#include <vector>

#include "common/ids.h"

namespace essor::coordinator {

// A stack, so that recently used blocks, which are warm, come first. Thread-compatible.
class BlockPool {
 public:
  explicit BlockPool(uint32_t num_blocks);

  uint32_t num_blocks() const { return num_blocks_; }
  uint32_t num_free() const { return static_cast<uint32_t>(free_.size()); }
  BlockId Take();  // num_free() > 0
  void Give(BlockId block);

 private:
  uint32_t num_blocks_;
  std::vector<BlockId> free_;
};

}  // namespace essor::coordinator
