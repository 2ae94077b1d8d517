#include "coordinator/core/block_pool.h"

#include "common/check.h"

namespace essor::coordinator {

BlockPool::BlockPool(uint32_t num_blocks) : num_blocks_(num_blocks) {
  free_.reserve(num_blocks);
  for (uint32_t i = num_blocks; i > 0; --i) free_.push_back(BlockId(i - 1));
}

BlockId BlockPool::Take() {
  ESSOR_CHECK(!free_.empty());
  const BlockId block = free_.back();
  free_.pop_back();
  return block;
}

void BlockPool::Give(BlockId block) {
  ESSOR_CHECK(free_.size() < num_blocks_);
  free_.push_back(block);
}

}  // namespace essor::coordinator
