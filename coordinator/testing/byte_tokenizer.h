// A tokenizer for tests: one token per byte, and an end token.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "model/tokenizer/tokenizer.h"

namespace essor::coordinator {

// Ids 0 to 255 are the bytes, 256 is the special token "<eos>". Thread-safe.
class ByteTokenizer final : public model::Tokenizer {
 public:
  static constexpr TokenId kEos = 256;

  ByteTokenizer() {
    for (int byte = 0; byte < 256; ++byte) texts_[byte] = std::string(1, static_cast<char>(byte));
    texts_[kEos] = "<eos>";
  }

  absl::StatusOr<std::vector<TokenId>> Encode(std::string_view text,
                                              const model::EncodeOptions&) const override {
    std::vector<TokenId> ids;
    for (const char byte : text) ids.push_back(static_cast<unsigned char>(byte));
    return ids;
  }
  std::string_view TokenBytes(TokenId id) const override {
    return id <= kEos ? std::string_view(texts_[id]) : std::string_view();
  }
  bool IsSpecial(TokenId id) const override { return id == kEos; }
  uint32_t vocab_size() const override { return kEos + 1; }
  const std::vector<TokenId>& special_tokens() const override { return specials_; }
  absl::StatusOr<TokenId> IdOf(std::string_view token) const override {
    if (token == "<eos>") return kEos;
    return absl::NotFoundError("no such token");
  }

 private:
  std::array<std::string, 257> texts_;
  std::vector<TokenId> specials_ = {kEos};
};

}  // namespace essor::coordinator
