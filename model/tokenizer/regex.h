// Regular expressions of tokenizer.json files (Oniguruma syntax there) on PCRE2 with its JIT.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/tokenizer/scanner.h"

namespace essor::model {

// Immutable; thread-safe.
class Regex {
 public:
  // InvalidArgument for a syntax error and for constructs that mean something else in PCRE2 (class
  // intersection `&&`, \h). Differences that can be written around are: \p{Han} is the script
  // and not the script extensions, \s is White_Space without U+180E, ^ and $ match at lines.
  static absl::StatusOr<std::unique_ptr<Regex>> Compile(std::string_view pattern);
  ~Regex();
  Regex(const Regex&) = delete;
  Regex& operator=(const Regex&) = delete;

  // The scratch memory of matching, worth keeping for many texts. Thread-compatible; the Regex must
  // outlive it.
  class Matcher {
   public:
    explicit Matcher(const Regex& regex);
    ~Matcher();
    Matcher(const Matcher&) = delete;
    Matcher& operator=(const Matcher&) = delete;

    // Appends all matches in `text` (valid UTF-8), left to right and not overlapping; empty matches
    // are left out. Matching sees only `text`, nothing around it. ResourceExhausted when the text
    // makes the pattern backtrack beyond the limits.
    absl::Status FindAll(std::string_view text, std::vector<Piece>* matches);

   private:
    struct State;
    std::unique_ptr<State> state_;
  };

 private:
  struct Compiled;
  explicit Regex(std::unique_ptr<Compiled> compiled);

  std::unique_ptr<Compiled> compiled_;
};

}  // namespace essor::model
