// Guards keep special-token text that comes from users text. A rendered prompt mixes the template's
// special tokens with the users' words; a guard (U+FDD0, a noncharacter) marks a place in it where
// no special token may begin or run through. The encoder drops guards and remembers the places, so
// no guard reaches an id. A user's own U+FDD0 or U+FDD1 is preceded by the escape U+FDD1.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace essor::model {

inline constexpr char32_t kGuard = 0xfdd0;
inline constexpr char32_t kGuardEscape = 0xfdd1;

// `text` without guards and escapes.
struct Unguarded {
  std::string text;
  std::vector<uint32_t> guards;  // byte offsets into `text`, ascending
};
Unguarded RemoveGuards(std::string_view guarded);

}  // namespace essor::model
