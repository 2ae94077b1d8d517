#include "model/tokenizer/unicode_classes.h"

#include <unicode/uchar.h>
#include <unicode/uscript.h>

namespace essor::model {
namespace {

constexpr char32_t kCodePoints = 0x110000;

ClassBits Classify(UChar32 c) {
  const uint32_t category = U_GET_GC_MASK(c);
  ClassBits bits = 0;
  if (category & U_GC_L_MASK) bits |= kLetter;
  if (category & U_GC_M_MASK) bits |= kMark;
  if (category & U_GC_N_MASK) bits |= kNumber;
  if (category & (U_GC_P_MASK | U_GC_S_MASK)) bits |= kPunctOrSymbol;
  if (category & (U_GC_LU_MASK | U_GC_LT_MASK)) bits |= kUpperOrTitle;
  if (category & U_GC_LL_MASK) bits |= kLower;
  if (u_hasBinaryProperty(c, UCHAR_WHITE_SPACE)) bits |= kSpace;
  if ((c >= 0x4e00 && c <= 0x9fa5) || (c >= 0x3040 && c <= 0x30ff)) bits |= kCjkOrKana;
  UErrorCode error = U_ZERO_ERROR;
  if (uscript_getScript(c, &error) == USCRIPT_HAN && U_SUCCESS(error)) bits |= kHan;
  return bits;
}

// Assigned in Unicode 15.1 and 16.0, which the `tokenizers` library (0.23) knows and ICU 72
// (Unicode 15.0) does not: DerivedAge.txt and DerivedGeneralCategory.txt of the Unicode Character
// Database.
struct Assignment {
  char32_t first;
  char32_t last;
  ClassBits bits;
};
constexpr Assignment kNewerAssignments[] = {
    // clang-format off
    {0x897, 0x897, kMark},
    {0x1b4e, 0x1b4f, kPunctOrSymbol},
    {0x1b7f, 0x1b7f, kPunctOrSymbol},
    {0x1c89, 0x1c89, kLetter | kUpperOrTitle},
    {0x1c8a, 0x1c8a, kLetter | kLower},
    {0x2427, 0x2429, kPunctOrSymbol},
    {0x2ffc, 0x2fff, kPunctOrSymbol},
    {0x31e4, 0x31e5, kPunctOrSymbol},
    {0x31ef, 0x31ef, kPunctOrSymbol},
    {0xa7cb, 0xa7cc, kLetter | kUpperOrTitle},
    {0xa7cd, 0xa7cd, kLetter | kLower},
    {0xa7da, 0xa7da, kLetter | kUpperOrTitle},
    {0xa7db, 0xa7db, kLetter | kLower},
    {0xa7dc, 0xa7dc, kLetter | kUpperOrTitle},
    {0x105c0, 0x105f3, kLetter},
    {0x10d40, 0x10d49, kNumber},
    {0x10d4a, 0x10d4f, kLetter},
    {0x10d50, 0x10d65, kLetter | kUpperOrTitle},
    {0x10d69, 0x10d6d, kMark},
    {0x10d6e, 0x10d6e, kPunctOrSymbol},
    {0x10d6f, 0x10d6f, kLetter},
    {0x10d70, 0x10d85, kLetter | kLower},
    {0x10d8e, 0x10d8f, kPunctOrSymbol},
    {0x10ec2, 0x10ec4, kLetter},
    {0x10efc, 0x10efc, kMark},
    {0x11380, 0x11389, kLetter},
    {0x1138b, 0x1138b, kLetter},
    {0x1138e, 0x1138e, kLetter},
    {0x11390, 0x113b5, kLetter},
    {0x113b7, 0x113b7, kLetter},
    {0x113b8, 0x113c0, kMark},
    {0x113c2, 0x113c2, kMark},
    {0x113c5, 0x113c5, kMark},
    {0x113c7, 0x113ca, kMark},
    {0x113cc, 0x113d0, kMark},
    {0x113d1, 0x113d1, kLetter},
    {0x113d2, 0x113d2, kMark},
    {0x113d3, 0x113d3, kLetter},
    {0x113d4, 0x113d5, kPunctOrSymbol},
    {0x113d7, 0x113d8, kPunctOrSymbol},
    {0x113e1, 0x113e2, kMark},
    {0x116d0, 0x116e3, kNumber},
    {0x11bc0, 0x11be0, kLetter},
    {0x11be1, 0x11be1, kPunctOrSymbol},
    {0x11bf0, 0x11bf9, kNumber},
    {0x11f5a, 0x11f5a, kMark},
    {0x13460, 0x143fa, kLetter},
    {0x16100, 0x1611d, kLetter},
    {0x1611e, 0x1612f, kMark},
    {0x16130, 0x16139, kNumber},
    {0x16d40, 0x16d6c, kLetter},
    {0x16d6d, 0x16d6f, kPunctOrSymbol},
    {0x16d70, 0x16d79, kNumber},
    {0x18cff, 0x18cff, kLetter},
    {0x1cc00, 0x1ccef, kPunctOrSymbol},
    {0x1ccf0, 0x1ccf9, kNumber},
    {0x1cd00, 0x1ceb3, kPunctOrSymbol},
    {0x1e5d0, 0x1e5ed, kLetter},
    {0x1e5ee, 0x1e5ef, kMark},
    {0x1e5f0, 0x1e5f0, kLetter},
    {0x1e5f1, 0x1e5fa, kNumber},
    {0x1e5ff, 0x1e5ff, kPunctOrSymbol},
    {0x1f8b2, 0x1f8bb, kPunctOrSymbol},
    {0x1f8c0, 0x1f8c1, kPunctOrSymbol},
    {0x1fa89, 0x1fa89, kPunctOrSymbol},
    {0x1fa8f, 0x1fa8f, kPunctOrSymbol},
    {0x1fabe, 0x1fabe, kPunctOrSymbol},
    {0x1fac6, 0x1fac6, kPunctOrSymbol},
    {0x1fadc, 0x1fadc, kPunctOrSymbol},
    {0x1fadf, 0x1fadf, kPunctOrSymbol},
    {0x1fae9, 0x1fae9, kPunctOrSymbol},
    {0x1fbcb, 0x1fbef, kPunctOrSymbol},
    {0x2ebf0, 0x2ee5d, kLetter | kHan},
    // clang-format on
};

}  // namespace

const UnicodeClasses& UnicodeClasses::Get() {
  static const UnicodeClasses* const classes = new UnicodeClasses();  // never destroyed
  return *classes;
}

UnicodeClasses::UnicodeClasses() : classes_(kCodePoints) {
  for (char32_t c = 0; c < kCodePoints; ++c) classes_[c] = Classify(static_cast<UChar32>(c));
  for (const Assignment& range : kNewerAssignments) {
    for (char32_t c = range.first; c <= range.last; ++c) {
      if (u_charType(static_cast<UChar32>(c)) == U_UNASSIGNED) classes_[c] = range.bits;
    }
  }
}

}  // namespace essor::model
