// General categories of all code points as a set of bits each, for the hand-written pre-tokenisers.
#pragma once

#include <cstdint>
#include <vector>

namespace essor::model {

// Bits of a code point's class; the names are those of Unicode's general categories.
using ClassBits = uint16_t;
enum UnicodeClass : ClassBits {
  kLetter = 1,          // \p{L}
  kMark = 2,            // \p{M}
  kNumber = 4,          // \p{N}
  kSpace = 8,           // \s: the White_Space property
  kPunctOrSymbol = 16,  // [\p{P}\p{S}]
  kUpperOrTitle = 32,   // [\p{Lu}\p{Lt}]
  kLower = 64,          // \p{Ll}
  kCjkOrKana = 128,     // [一-龥぀-ゟ゠-ヿ], DeepSeek's second split
  kHan = 256,           // \p{Han}: the script
};

// The table is built from ICU on first use (some 10 ms) and shared; immutable, thread-safe.
class UnicodeClasses {
 public:
  static const UnicodeClasses& Get();

  ClassBits Of(char32_t code_point) const { return classes_[code_point]; }
  const ClassBits* data() const { return classes_.data(); }

 private:
  UnicodeClasses();

  std::vector<ClassBits> classes_;  // [0x110000]
};

}  // namespace essor::model
