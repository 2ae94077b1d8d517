// Which pairs of tokens merge into which.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/ids.h"
#include "model/tokenizer/word_key.h"

namespace essor::model {

struct Merge {
  static constexpr uint32_t kNone = UINT32_MAX;

  uint32_t rank = kNone;  // kNone: the pair does not merge
  TokenId result = 0;
};

// A hash table that is filled once. Most look-ups of real text find nothing, or a pair of the first
// few tokens: small arrays that stay in the cache answer both. Thread-compatible; const calls are
// thread-safe.
class MergeTable {
 public:
  MergeTable() : MergeTable(0) {}
  // Room for `merges` of them.
  explicit MergeTable(size_t merges);

  // Of a pair given twice, the last merge holds.
  void Insert(TokenId left, TokenId right, const Merge& merge);

  Merge Find(TokenId left, TokenId right) const {
    if ((left | right) < kFirstTokens) return first_[left * kFirstTokens + right];
    const uint64_t pair = PairOf(left, right);
    const uint64_t hash = MixHash(pair, 0);
    if ((filter_[FilterBit(hash) / 64] >> (FilterBit(hash) % 64) & 1) == 0) return {};
    for (size_t i = hash & (slots_.size() - 1); slots_[i].pair != kFree;
         i = (i + 1) & (slots_.size() - 1)) {
      if (slots_[i].pair == pair) return slots_[i].merge;
    }
    return {};
  }

  // Calls visit(left, right, merge) for each, in no order.
  template <typename Visitor>
  void ForEach(const Visitor& visit) const {
    for (const Slot& slot : slots_) {
      if (slot.pair == kFree) continue;
      visit(static_cast<TokenId>(slot.pair >> 32), static_cast<TokenId>(slot.pair), slot.merge);
    }
  }

 private:
  struct Slot {
    uint64_t pair = kFree;
    Merge merge;
  };
  static constexpr uint64_t kFree = UINT64_MAX;
  // Where vocabularies put the tokens of single bytes and what they merge to first. A power of two.
  static constexpr TokenId kFirstTokens = 512;

  static uint64_t PairOf(TokenId left, TokenId right) { return (uint64_t{left} << 32) | right; }
  size_t FilterBit(uint64_t hash) const { return hash >> filter_shift_; }

  std::vector<Slot> slots_;       // all merges; open addressing, a power of two
  std::vector<Merge> first_;      // [kFirstTokens, kFirstTokens] of them
  std::vector<uint64_t> filter_;  // a bit is set where a pair's hash is
  int filter_shift_ = 0;
};

}  // namespace essor::model
