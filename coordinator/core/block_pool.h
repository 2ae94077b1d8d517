// The KV blocks of one instance and who may take them.
#pragma once

#include <cstdint>
#include <vector>

#include "common/ids.h"

namespace essor::coordinator {

// Blocks are reserved by number when a sequence is admitted and taken one by one as it grows, so a
// running sequence can never lack one. Thread-compatible.
class BlockPool {
 public:
  explicit BlockPool(uint32_t num_blocks);

  uint32_t num_blocks() const { return num_blocks_; }
  // Taken ones; reserved blocks that are not taken yet do not count.
  uint32_t num_used() const { return num_blocks_ - static_cast<uint32_t>(free_.size()); }
  // What a new reservation may still claim.
  uint32_t num_unreserved() const { return static_cast<uint32_t>(free_.size()) - reserved_; }

  // False, with nothing changed, when fewer than `count` blocks are unreserved.
  bool Reserve(uint32_t count);
  // A block out of an earlier reservation.
  BlockId Take();
  // Gives taken blocks and what is left of their reservation back.
  void Return(const std::vector<BlockId>& taken, uint32_t still_reserved);

 private:
  uint32_t num_blocks_;
  uint32_t reserved_ = 0;
  std::vector<BlockId> free_;  // a stack: recently used blocks are warm
};

}  // namespace essor::coordinator
