// The unigram language model of SentencePiece (Kudo 2018, "Subword Regularization", section 3.2):
// of all ways to write a piece of text as tokens, the one with the largest sum of scores.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/ids.h"
#include "model/tokenizer/byte_fallback.h"
#include "model/tokenizer/scanner.h"
#include "model/tokenizer/tokenizer_definition.h"

namespace essor::model {

// Immutable; thread-safe.
class UnigramModel {
 public:
  // The longest token text that is searched for: encoding takes that many steps a byte at most.
  static constexpr size_t kTokenBytesMax = 1024;
  // The longest piece: encoding needs some 16 times its bytes of memory.
  static constexpr size_t kPieceBytesMax = size_t{64} << 20;

  // InvalidArgument naming the token for anything inconsistent, and for longer tokens than above.
  static absl::StatusOr<std::unique_ptr<UnigramModel>> Create(const BpeDefinition& vocabulary,
                                                              const UnigramDefinition& definition);

  // Appends the ids of `piece` (valid UTF-8). Among equal sums the path wins whose last token is
  // longest. A run of unknown characters becomes one unk_token, or with byte fallback its bytes.
  // Linear time. InvalidArgument for a piece that is too long.
  absl::Status Encode(std::string_view piece, std::vector<TokenId>* ids) const;

 private:
  static constexpr TokenId kNoToken = UINT32_MAX;

  struct Node {
    TokenId id = kNoToken;
    double score = 0;
  };
  // The best way to write the text up to some place.
  struct Best {
    double score = 0;
    int32_t begin = -1;  // of its last token; -1: no way yet
    TokenId id = kNoToken;
  };

  UnigramModel() = default;
  void AddToken(std::string_view text, TokenId id, double score);
  uint32_t Child(uint32_t node, uint8_t byte) const;  // 0 (the root): none
  std::vector<Best> FindBest(std::string_view piece) const;
  void AppendUnknown(std::string_view text, std::vector<TokenId>* ids) const;

  std::vector<Node> nodes_;
  // Parent node and byte to child. Seeded: a file must not choose keys that collide.
  absl::flat_hash_map<uint64_t, uint32_t> edges_;
  TokenId unk_ = kNoToken;
  double unk_score_ = 0;
  ByteTokens byte_tokens_;  // of the byte fallback
};

}  // namespace essor::model
