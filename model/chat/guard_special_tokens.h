// Special-token text inside user messages must stay text although the rendered prompt is encoded
// with parse_special.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace essor::model {

// Thread-compatible.
class SpecialTokenGuard {
 public:
  explicit SpecialTokenGuard(std::vector<std::string> special_texts);
  ~SpecialTokenGuard();
  SpecialTokenGuard(const SpecialTokenGuard&) = delete;
  SpecialTokenGuard& operator=(const SpecialTokenGuard&) = delete;

  // Puts a guard (the noncharacter U+FDD0, see model/tokenizer/guards.h) before every occurrence of
  // a special text inside the strings of a JSON document, and before the beginning of one at a
  // string's end or the rest of one at its start, which could become a token together with the
  // template's text. Encoding with EncodeOptions::guarded drops the guards again. A U+FDD0 or
  // U+FDD1 of the user's own is escaped and comes back unchanged. Malformed JSON comes back as it
  // is.
  std::string GuardStrings(std::string_view json);

 private:
  class SpecialTexts;
  std::unique_ptr<SpecialTexts> texts_;
};

}  // namespace essor::model
