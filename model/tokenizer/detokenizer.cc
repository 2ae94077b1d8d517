#include <algorithm>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "model/tokenizer/tokenizer.h"
#include "model/tokenizer/utf8.h"

namespace essor::model {

absl::StatusOr<std::string> Tokenizer::Decode(std::span<const TokenId> ids,
                                              bool skip_special) const {
  IncrementalDetokenizer detokenizer(this, skip_special);
  std::string text;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= vocab_size()) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "token id %d at position %d; the vocabulary has %d tokens", ids[i], i, vocab_size()));
    }
    text.append(detokenizer.Push(ids[i]));
  }
  text.append(detokenizer.Finish());
  return text;
}

std::string IncrementalDetokenizer::Push(TokenId id) {
  if (skip_special_ && tokenizer_->IsSpecial(id)) return {};
  const bool first = !any_token_;
  any_token_ = true;
  if (tokenizer_->IsByteFallback(id)) {
    run_.append(tokenizer_->TokenBytes(id));
    return {};
  }
  std::string before = FlushRun();
  pending_.append(tokenizer_->TokenBytes(id));
  std::string text;
  pending_.erase(0, AppendLossyUtf8(pending_, /*final=*/false, &text));
  return before + TrimStart(std::move(text), first);
}

std::string IncrementalDetokenizer::Finish() {
  std::string text = FlushRun();
  AppendLossyUtf8(pending_, /*final=*/true, &text);
  *this = IncrementalDetokenizer(tokenizer_, skip_special_);
  return text;
}

std::string IncrementalDetokenizer::FlushRun() {
  if (run_.empty()) return {};
  std::string text;
  if (IsValidUtf8(run_)) {
    text = run_;
  } else {
    for (size_t i = 0; i < run_.size(); ++i) AppendUtf8(0xfffd, &text);
  }
  run_.clear();
  return TrimStart(std::move(text), /*first=*/false);
}

std::string IncrementalDetokenizer::TrimStart(std::string text, bool first) {
  const TextStart rule = tokenizer_->text_start();
  if (rule == TextStart::kDropBlanksOfFirstToken && first) std::erase(text, ' ');
  const bool starts = !any_text_ && !text.empty();
  any_text_ |= starts;
  if (rule == TextStart::kDropBlank && starts && text.front() == ' ') text.erase(0, 1);
  return text;
}

}  // namespace essor::model
