#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "model/tokenizer/tokenizer.h"
#include "model/tokenizer/utf8.h"

namespace essor::model {

absl::StatusOr<std::string> Tokenizer::Decode(std::span<const TokenId> ids,
                                              bool skip_special) const {
  std::string bytes;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= vocab_size()) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "token id %d at position %d; the vocabulary has %d tokens", ids[i], i, vocab_size()));
    }
    if (!skip_special || !IsSpecial(ids[i])) bytes.append(TokenBytes(ids[i]));
  }
  if (IsValidUtf8(bytes)) return bytes;
  std::string text;
  AppendLossyUtf8(bytes, /*final=*/true, &text);
  return text;
}

std::string IncrementalDetokenizer::Push(TokenId id) {
  if (skip_special_ && tokenizer_->IsSpecial(id)) return {};
  pending_.append(tokenizer_->TokenBytes(id));
  std::string text;
  pending_.erase(0, AppendLossyUtf8(pending_, /*final=*/false, &text));
  return text;
}

std::string IncrementalDetokenizer::Finish() {
  std::string text;
  AppendLossyUtf8(pending_, /*final=*/true, &text);
  pending_.clear();
  return text;
}

}  // namespace essor::model
