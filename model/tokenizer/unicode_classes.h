// General categories of all code points as one byte each, for the hand-written pre-tokenisers.
#pragma once

#include <cstdint>
#include <vector>

namespace essor::model {

// Bits of a code point's class; the names are those of Unicode's general categories.
enum UnicodeClass : uint8_t {
  kLetter = 1,          // \p{L}
  kMark = 2,            // \p{M}
  kNumber = 4,          // \p{N}
  kSpace = 8,           // \s: the White_Space property
  kPunctOrSymbol = 16,  // [\p{P}\p{S}]
  kUpperOrTitle = 32,   // [\p{Lu}\p{Lt}]
  kLower = 64,          // \p{Ll}
  kCjkOrKana = 128,     // [一-龥぀-ゟ゠-ヿ], DeepSeek's second split
};

// The table is built from ICU on first use (some 10 ms) and shared; immutable, thread-safe.
class UnicodeClasses {
 public:
  static const UnicodeClasses& Get();

  uint8_t Of(char32_t code_point) const { return classes_[code_point]; }
  const uint8_t* data() const { return classes_.data(); }

 private:
  UnicodeClasses();

  std::vector<uint8_t> classes_;  // [0x110000]
};

}  // namespace essor::model
