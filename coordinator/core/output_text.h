// From sampled tokens to the text of one continuation.
#pragma once

#include <string>
#include <vector>

#include "common/ids.h"
#include "coordinator/core/stop_matcher.h"
#include "model/tokenizer/tokenizer.h"

namespace essor::coordinator {

// Joins incremental detokenisation and stop strings: text leaves in whole characters and only when
// it can no longer be part of a stop string. Thread-compatible; `tokenizer` (null: no text at all)
// must outlive it.
class OutputText {
 public:
  OutputText(const model::Tokenizer* tokenizer, bool skip_special, std::vector<std::string> stops);

  std::string Push(TokenId token);
  // What was held back; call once, when the continuation ends.
  std::string Finish();
  // A stop string is complete; the continuation must end.
  bool stopped() const { return matcher_.matched(); }

 private:
  const bool has_tokenizer_;
  model::IncrementalDetokenizer detokenizer_;
  StopMatcher matcher_;
};

}  // namespace essor::coordinator
