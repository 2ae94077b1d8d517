#include "model/tokenizer/merge_table.h"

namespace essor::model {

// At most three quarters full; the filter has four bits for each merge or more.
MergeTable::MergeTable(size_t merges)
    : slots_(std::bit_ceil(std::max<size_t>(merges, 4) * 4 / 3)),
      first_(size_t{kFirstTokens} * kFirstTokens) {
  const size_t bits = std::bit_ceil(std::max<size_t>(merges, 16) * 4);
  filter_.resize(bits / 64);
  filter_shift_ = 64 - std::countr_zero(bits);
}

void MergeTable::Insert(TokenId left, TokenId right, const Merge& merge) {
  if ((left | right) < kFirstTokens) first_[left * kFirstTokens + right] = merge;
  const uint64_t pair = PairOf(left, right);
  const uint64_t hash = MixHash(pair, 0);
  filter_[FilterBit(hash) / 64] |= uint64_t{1} << (FilterBit(hash) % 64);
  size_t i = hash & (slots_.size() - 1);
  while (slots_[i].pair != kFree && slots_[i].pair != pair) i = (i + 1) & (slots_.size() - 1);
  slots_[i] = {pair, merge};
}

}  // namespace essor::model
