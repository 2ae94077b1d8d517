// Where an encoder puts ids.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "common/ids.h"

namespace essor::model {

// Collects ids, so that appending four of them takes no decision.
class TokenOutput {
 public:
  // Ids appended at once; unused places hold kNone.
  static constexpr size_t kGroup = 4;
  static constexpr TokenId kNone = UINT32_MAX;

  explicit TokenOutput(std::vector<TokenId>* ids) : ids_(ids) {}
  ~TokenOutput() { Flush(); }
  TokenOutput(const TokenOutput&) = delete;
  TokenOutput& operator=(const TokenOutput&) = delete;

  void Append(TokenId id) {
    if (size_ == buffer_.size()) Flush();
    buffer_[size_++] = id;
  }
  // Those before the first kNone.
  void Append(const std::array<TokenId, kGroup>& ids) {
    if (size_ + ids.size() > buffer_.size()) Flush();
    std::memcpy(&buffer_[size_], ids.data(), sizeof(ids));
    for (const TokenId id : ids) size_ += id != kNone ? 1 : 0;
  }
  void Append(const std::vector<TokenId>& ids) {
    Flush();
    ids_->insert(ids_->end(), ids.begin(), ids.end());
  }

 private:
  void Flush() {
    ids_->insert(ids_->end(), buffer_.begin(), buffer_.begin() + size_);
    size_ = 0;
  }

  std::vector<TokenId>* ids_;
  size_t size_ = 0;
  std::array<TokenId, 512> buffer_;
};

}  // namespace essor::model
