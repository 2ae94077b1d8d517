#include "model/tokenizer/guards.h"

namespace essor::model {
namespace {

constexpr std::string_view kGuardBytes = "\xef\xb7\x90";
constexpr std::string_view kEscapeBytes = "\xef\xb7\x91";
constexpr size_t kSize = 3;

}  // namespace

Unguarded RemoveGuards(std::string_view guarded) {
  Unguarded result;
  size_t position = 0;
  while (true) {
    const size_t next = guarded.find(kGuardBytes.substr(0, 2), position);
    if (next == std::string_view::npos) break;
    result.text.append(guarded.substr(position, next - position));
    const std::string_view mark = guarded.substr(next, kSize);
    position = next + mark.size();
    if (mark == kGuardBytes) {
      result.guards.push_back(static_cast<uint32_t>(result.text.size()));
      continue;
    }
    // A template may have cut an escape from what it escapes; then it stands for nothing.
    if (mark == kEscapeBytes) {
      const std::string_view escaped = guarded.substr(position, kSize);
      if (escaped == kGuardBytes || escaped == kEscapeBytes) {
        result.text.append(escaped);
        position += kSize;
      }
      continue;
    }
    result.text.append(mark);
  }
  result.text.append(guarded.substr(position));
  return result;
}

}  // namespace essor::model
