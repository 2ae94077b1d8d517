#include "client/cli/progress_line.h"

#include <unistd.h>

#include <utility>

namespace essor::cli {
namespace {

constexpr absl::Duration kLineInterval = absl::Seconds(1);
constexpr char kEraseLine[] = "\r\033[K";

}  // namespace

ProgressLine::ProgressLine(std::string prefix, std::FILE* stream, bool is_terminal)
    : prefix_(std::move(prefix)), stream_(stream), is_terminal_(is_terminal) {}

ProgressLine::ProgressLine(std::string prefix)
    : ProgressLine(std::move(prefix), stderr, isatty(STDERR_FILENO) == 1) {}

void ProgressLine::Show(const std::string& text, absl::Time now) {
  if (text == last_text_) return;
  if (!is_terminal_ && now - last_time_ < kLineInterval) return;
  last_text_ = text;
  last_time_ = now;
  const std::string line = prefix_ + ": " + text;
  std::fputs((is_terminal_ ? kEraseLine + line : line + "\n").c_str(), stream_);
  std::fflush(stream_);
  shown_ = true;
}

void ProgressLine::Clear() {
  if (shown_ && is_terminal_) {
    std::fputs(kEraseLine, stream_);
    std::fflush(stream_);
  }
  shown_ = false;
}

}  // namespace essor::cli
