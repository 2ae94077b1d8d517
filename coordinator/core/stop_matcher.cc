#include "coordinator/core/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace essor::coordinator {

StopMatcher::StopMatcher(std::vector<std::string> stops) {
  for (std::string& stop : stops) {
    Pattern pattern;
    pattern.fallback.assign(stop.size(), 0);
    for (size_t i = 1, border = 0; i < stop.size(); ++i) {
      while (border > 0 && stop[i] != stop[border]) border = pattern.fallback[border - 1];
      if (stop[i] == stop[border]) ++border;
      pattern.fallback[i] = border;
    }
    pattern.text = std::move(stop);
    patterns_.push_back(std::move(pattern));
  }
}

std::string StopMatcher::Push(std::string_view text) {
  if (matched_) return "";
  if (patterns_.empty()) return std::string(text);
  for (const char byte : text) {
    held_.push_back(byte);
    size_t matched_bytes = 0;
    for (Pattern& pattern : patterns_) {
      while (pattern.state > 0 && pattern.text[pattern.state] != byte) {
        pattern.state = pattern.fallback[pattern.state - 1];
      }
      if (pattern.text[pattern.state] == byte) ++pattern.state;
      if (pattern.state == pattern.text.size()) {
        matched_bytes = std::max(matched_bytes, pattern.state);
        pattern.state = pattern.fallback[pattern.state - 1];
      }
    }
    if (matched_bytes == 0) continue;
    matched_ = true;
    held_.resize(held_.size() - matched_bytes);
    return std::exchange(held_, "");
  }
  size_t possible = 0;
  for (const Pattern& pattern : patterns_) possible = std::max(possible, pattern.state);
  std::string released = held_.substr(0, held_.size() - possible);
  held_.erase(0, released.size());
  return released;
}

std::string StopMatcher::Finish() { return std::exchange(held_, ""); }

}  // namespace essor::coordinator
