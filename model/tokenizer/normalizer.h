// Text normalisation before pre-tokenisation.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/tokenizer/regex.h"
#include "model/tokenizer/tokenizer_definition.h"

namespace essor::model {

// Applies its steps in order. Immutable; thread-safe.
class Normalizer {
 public:
  // InvalidArgument for a pattern that does not compile.
  static absl::StatusOr<std::unique_ptr<Normalizer>> Create(std::vector<NormalizerStep> steps);

  // The normal form of `text` (valid UTF-8): `text` itself where nothing changes, otherwise
  // `buffer`, which holds it. `at_start`: no added token came before it. ResourceExhausted when it
  // would pass `max_bytes`.
  absl::StatusOr<std::string_view> Apply(std::string_view text, bool at_start, size_t max_bytes,
                                         std::string* buffer) const;

 private:
  struct Step {
    NormalizerStep definition;
    std::unique_ptr<Regex> regex;  // of a ReplaceStep
  };

  Normalizer() = default;

  std::vector<Step> steps_;
};

}  // namespace essor::model
