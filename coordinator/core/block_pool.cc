#include "coordinator/core/block_pool.h"

#include "common/check.h"

namespace essor::coordinator {

BlockPool::BlockPool(uint32_t num_blocks) : num_blocks_(num_blocks) {
  free_.reserve(num_blocks);
  for (uint32_t i = num_blocks; i > 0; --i) free_.push_back(BlockId(i - 1));
}

bool BlockPool::Reserve(uint32_t count) {
  if (num_unreserved() < count) return false;
  reserved_ += count;
  return true;
}

BlockId BlockPool::Take() {
  ESSOR_CHECK(reserved_ > 0 && !free_.empty());
  --reserved_;
  const BlockId block = free_.back();
  free_.pop_back();
  return block;
}

void BlockPool::Return(const std::vector<BlockId>& taken, uint32_t still_reserved) {
  ESSOR_CHECK(still_reserved <= reserved_);
  ESSOR_CHECK(free_.size() + taken.size() <= num_blocks_);
  reserved_ -= still_reserved;
  for (auto block = taken.rbegin(); block != taken.rend(); ++block) free_.push_back(*block);
}

}  // namespace essor::coordinator
