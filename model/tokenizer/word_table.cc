#include "model/tokenizer/word_table.h"

#include <algorithm>
#include <bit>

namespace essor::model {

// At most half full.
WordTable::WordTable(size_t words) : slots_(std::bit_ceil(std::max<size_t>(words, 4) * 2)) {}

void WordTable::Insert(std::string_view word, TokenId id, bool whole_only) {
  const WordKey key = WordKey::Of(word, word.data() + word.size());
  size_t slot = key.Hash() & (slots_.size() - 1);
  while (slots_[slot].id != UINT32_MAX) slot = (slot + 1) & (slots_.size() - 1);
  slots_[slot].key = key;
  slots_[slot].id = id;
  slots_[slot].offset = static_cast<uint32_t>(bytes_.size());
  slots_[slot].size = static_cast<uint32_t>(word.size()) & 0x7fffffff;
  slots_[slot].whole_only = whole_only ? 1 : 0;
  if (!key.is_inline()) bytes_.append(word);
}

const WordTable::Word* WordTable::Find(std::string_view word, const WordKey& key) const {
  for (size_t slot = key.Hash() & (slots_.size() - 1); slots_[slot].id != UINT32_MAX;
       slot = (slot + 1) & (slots_.size() - 1)) {
    const Word& candidate = slots_[slot];
    if (candidate.key != key) continue;
    if (key.is_inline()) return &candidate;
    if (std::string_view(bytes_).substr(candidate.offset, candidate.size) == word) {
      return &candidate;
    }
  }
  return nullptr;
}

}  // namespace essor::model
