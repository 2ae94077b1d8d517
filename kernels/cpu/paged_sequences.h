// For tests of attention: sequences whose tokens lie in scattered blocks of a paged cache,
// processed in any division into steps. The inputs of a token are the same however it comes to be
// processed, so results can be compared token by token.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <span>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/attention.h"
#include "kernels/cpu/row_test_support.h"

namespace essor::kernels {

inline bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

class PagedSequences {
 public:
  // `count` tokens of sequence `s` that follow the `context` already processed, as part of a step.
  struct Part {
    uint32_t s;
    uint32_t context;
    uint32_t count;
  };

  virtual ~PagedSequences() = default;

  // One step; keeps the results by token. With `stream` null by the plain loops.
  void Step(const std::vector<Part>& parts, Stream* stream) {
    std::vector<SequenceRows> sequences;
    uint32_t rows = 0;
    for (const Part& part : parts) {
      sequences.push_back({.first_row = rows,
                           .num_rows = part.count,
                           .context_tokens = part.context,
                           .block_table = block_tables_[part.s].data()});
      rows += part.count;
    }
    std::vector<float> y(size_t{rows} * y_width_ + 1, kPoison);
    Attend(parts, sequences, y.data(), stream);
    EXPECT_EQ(y.back(), kPoison);  // nothing behind the end
    for (size_t p = 0; p < parts.size(); ++p) {
      std::copy_n(y.begin() + size_t{sequences[p].first_row} * y_width_,
                  size_t{parts[p].count} * y_width_,
                  results_[parts[p].s].begin() + size_t{parts[p].context} * y_width_);
    }
  }

  // A whole sequence in chunks of `chunk` tokens.
  void RunInChunks(uint32_t s, uint32_t chunk, Stream* stream) {
    for (uint32_t context = 0; context < tokens_; context += chunk) {
      Step({{s, context, std::min(chunk, tokens_ - context)}}, stream);
    }
  }

  const std::vector<float>& result(uint32_t s) const { return results_[s]; }  // [tokens, y_width]

  // Blocks 0 .. count - 1 of sequence `s` are given back: looking one up from now on ends far
  // outside of all memory.
  void ForgetBlocks(uint32_t s, uint32_t count) {
    std::fill_n(block_tables_[s].begin(), count, std::numeric_limits<uint32_t>::max());
  }

 protected:
  struct Shape {
    uint32_t num_sequences;
    uint32_t tokens;  // of each sequence, at most
    uint32_t block_tokens;
    uint32_t y_width;  // floats of a result row
  };

  explicit PagedSequences(const Shape& shape) : tokens_(shape.tokens), y_width_(shape.y_width) {
    const uint32_t per_sequence = shape.tokens / shape.block_tokens + 1;
    num_blocks_ = per_sequence * shape.num_sequences + 3;
    std::vector<uint32_t> blocks(num_blocks_);
    std::iota(blocks.begin(), blocks.end(), 0u);
    std::shuffle(blocks.begin(), blocks.end(), std::mt19937(shape.block_tokens));
    for (uint32_t s = 0; s < shape.num_sequences; ++s) {
      block_tables_.emplace_back(blocks.begin() + s * per_sequence,
                                 blocks.begin() + (s + 1) * per_sequence);
      results_.emplace_back(size_t{shape.tokens} * shape.y_width, kPoison);
    }
  }

  uint32_t num_blocks() const { return num_blocks_; }
  // Stores the parts' keys and values and attends: y [rows of all parts, y_width].
  virtual void Attend(std::span<const Part> parts, std::span<const SequenceRows> sequences,
                      float* y, Stream* stream) = 0;

 private:
  const uint32_t tokens_;
  const uint32_t y_width_;
  uint32_t num_blocks_ = 0;
  std::vector<std::vector<uint32_t>> block_tables_;
  std::vector<std::vector<float>> results_;
};

}  // namespace essor::kernels
