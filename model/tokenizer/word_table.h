// Words to token ids.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/ids.h"
#include "model/tokenizer/word_key.h"

namespace essor::model {

// A hash table that is filled once. Thread-compatible; const calls are thread-safe.
class WordTable {
 public:
  struct Word {
    WordKey key;
    TokenId id = UINT32_MAX;  // UINT32_MAX: a free slot
    uint32_t offset = 0;      // of the bytes in bytes_, for keys that are hashes
    uint32_t size : 31 = 0;
    // Only a piece that is this word has the id; where the word is a part of a piece, its bytes
    // are to be merged.
    uint32_t whole_only : 1 = 0;
  };

  // Room for `words` of them.
  explicit WordTable(size_t words);

  // `word` is not empty and was not inserted before.
  void Insert(std::string_view word, TokenId id, bool whole_only);
  // Null when there is no such word.
  const Word* Find(std::string_view word, const WordKey& key) const;

 private:
  std::vector<Word> slots_;  // open addressing, a power of two
  std::string bytes_;        // of words whose keys are hashes
};

}  // namespace essor::model
