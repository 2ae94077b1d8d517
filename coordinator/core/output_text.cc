#include "coordinator/core/output_text.h"

#include <utility>

namespace essor::coordinator {

OutputText::OutputText(const model::Tokenizer* tokenizer, bool skip_special,
                       std::vector<std::string> stops)
    : has_tokenizer_(tokenizer != nullptr),
      detokenizer_(tokenizer, skip_special),
      matcher_(std::move(stops)) {}

std::string OutputText::Push(TokenId token) {
  if (!has_tokenizer_) return "";
  return matcher_.Push(detokenizer_.Push(token));
}

std::string OutputText::Finish() {
  if (!has_tokenizer_) return "";
  std::string text = matcher_.Push(detokenizer_.Finish());
  return text + matcher_.Finish();
}

}  // namespace essor::coordinator
