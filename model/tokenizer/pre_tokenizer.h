// Cuts normalised text into the pieces that the model works on.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/tokenizer/regex.h"
#include "model/tokenizer/scanner.h"
#include "model/tokenizer/tokenizer_definition.h"

namespace essor::model {

// Pieces of a text. `text` is the input, or `rewritten` when a step had to insert characters.
struct PreTokenized {
  std::string_view text;
  std::string rewritten;
  std::vector<Piece> pieces;
};

// Immutable; thread-safe.
class PreTokenizer {
 public:
  // InvalidArgument for a pattern that does not compile.
  static absl::StatusOr<std::unique_ptr<PreTokenizer>> Create(std::vector<PreTokenizerStep> steps);

  // The scanner that does all steps at once, or null when they need Run(). Without any step a text
  // is one piece.
  const Scanner* scanner() const { return scanner_; }

  // All pieces of `text` (valid UTF-8, under 4 GiB), which must outlive `result`. `at_start`: no
  // added token came before it.
  absl::Status Run(std::string_view text, bool at_start, PreTokenized* result) const;

 private:
  struct Step {
    PreTokenizerStep definition;
    std::unique_ptr<Regex> regex;  // of a SplitStep
  };

  PreTokenizer() = default;

  std::vector<Step> steps_;
  const Scanner* scanner_ = nullptr;
};

}  // namespace essor::model
