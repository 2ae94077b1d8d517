// Finds stop strings in text that arrives in pieces.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace essor::coordinator {

// Text is released only once it cannot be part of a stop string any more, so nothing of a matched
// stop string (nor text behind it) ever gets out. The result depends on the concatenated text only,
// not on how it is cut: the stop string whose last byte comes first wins, the longest of several.
// Thread-compatible. Cost: amortised constant per byte and stop string (Knuth-Morris-Pratt).
class StopMatcher {
 public:
  // None of `stops` is empty.
  explicit StopMatcher(std::vector<std::string> stops);

  // The text that became certain. After a match nothing more is released.
  std::string Push(std::string_view text);
  // Text held back at the end of the stream, released because no stop string was completed.
  std::string Finish();
  bool matched() const { return matched_; }

 private:
  struct Pattern {
    std::string text;
    std::vector<size_t> fallback;  // length of the longest border of text[0..i]
    size_t state = 0;              // bytes of `text` that end the input so far
  };

  std::vector<Pattern> patterns_;
  std::string held_;  // a suffix of the input that may begin a stop string
  bool matched_ = false;
};

}  // namespace essor::coordinator
