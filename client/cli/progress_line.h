// Progress of a long operation on stderr: one line that is rewritten on a terminal, whole lines at
// most once a second elsewhere.
#pragma once

#include <cstdio>
#include <string>

#include "absl/time/time.h"

namespace essor::cli {

// Thread-compatible.
class ProgressLine {
 public:
  // Lines begin with `prefix`. `stream` must outlive the object.
  ProgressLine(std::string prefix, std::FILE* stream, bool is_terminal);
  // On stderr.
  explicit ProgressLine(std::string prefix);
  ~ProgressLine() { Clear(); }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void Show(const std::string& text, absl::Time now);
  // Removes the line from a terminal, so that other output begins on a clean one.
  void Clear();

 private:
  const std::string prefix_;
  std::FILE* const stream_;
  const bool is_terminal_;
  bool shown_ = false;
  std::string last_text_;
  absl::Time last_time_ = absl::InfinitePast();
};

}  // namespace essor::cli
