#include "model/tokenizer/scanner.h"

#include "common/check.h"
#include "model/tokenizer/ascii_runs.h"
#include "model/tokenizer/unicode_classes.h"
#include "model/tokenizer/utf8.h"

namespace essor::model {
namespace {

constexpr std::string_view kGpt2Pattern =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
constexpr std::string_view kQwen2Pattern =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr std::string_view kQwen35Pattern =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}"
    "| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr std::string_view kLlama3Pattern =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}"
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr std::string_view kDeepSeekPattern =
    "[!\"#$%&'()*+,\\-./"
    ":;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+";
constexpr std::string_view kO200kPattern =
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+"
    "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}"
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

// tokenization_kimi.py of moonshotai/Kimi-K2-Instruct.
constexpr std::string_view kKimiPattern =
    "[\\p{Han}]+"
    "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]*"
    "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]+"
    "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}"
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

// One character of the text, with its class; size 0 at the end of the text or, for sequences of
// splits, at a character that an earlier split has cut out.
struct Character {
  ClassBits bits = 0;
  uint8_t size = 0;
  char first = 0;  // its first byte

  bool Has(ClassBits mask) const { return (bits & mask) != 0; }
  bool IsEnd() const { return size == 0; }
  bool IsNewline() const { return size != 0 && (first == '\n' || first == '\r'); }
  bool IsBlank() const { return size != 0 && first == ' '; }
};

// A text as the patterns see it. `stop` classes end the text: the pieces of an earlier split.
class View {
 public:
  View(std::string_view text, ClassBits stop)
      : data_(text.data()), size_(text.size()), stop_(stop), table_(UnicodeClasses::Get().data()) {
    ESSOR_CHECK(!(stop & (kLetter | kSpace)));  // see SkipAscii
  }

  // The same text, which also ends at every character without `mask`.
  View Only(ClassBits mask) const {
    View result = *this;
    result.stop_ = 0;
    result.only_ = mask;
    return result;
  }

  size_t size() const { return size_; }
  char byte(size_t position) const { return data_[position]; }

  // Ignores `stop`.
  Character AtAny(size_t position) const {
    if (position >= size_) return {};
    const char first = data_[position];
    if (static_cast<uint8_t>(first) < 0x80) return {table_[static_cast<uint8_t>(first)], 1, first};
    const CodePoint c = DecodeUtf8(data_ + position);
    return {table_[c.value], static_cast<uint8_t>(c.size), first};
  }
  Character At(size_t position) const {
    const Character c = AtAny(position);
    return c.Has(stop_) || (c.bits & only_) != only_ ? Character{} : c;
  }
  // Letters and whatever else is in `mask`.
  size_t SkipLettersAnd(size_t position, ClassBits mask) const {
    return SkipWhile(SkipAscii<ascii::Letters>(position), mask | kLetter);
  }
  // A run of ASCII letters or blanks.
  template <typename Kind>
  size_t SkipAscii(size_t position) const {
    return only_ != 0 ? position : ascii::SkipRun<Kind>({data_, size_}, position);
  }
  size_t SkipWhile(size_t position, ClassBits mask) const {
    for (Character c = At(position); c.Has(mask); c = At(position)) position += c.size;
    return position;
  }
  // Characters of none of the classes.
  size_t SkipWhileNot(size_t position, ClassBits mask) const {
    for (Character c = At(position); !c.IsEnd() && !c.Has(mask); c = At(position)) {
      position += c.size;
    }
    return position;
  }
  size_t SkipNewlines(size_t position) const {
    while (At(position).IsNewline()) ++position;
    return position;
  }
  // At most `count` characters of class `mask`, whatever `stop` says.
  size_t SkipAtMost(size_t position, ClassBits mask, int count) const {
    for (Character c = AtAny(position); count > 0 && c.Has(mask); c = AtAny(position)) {
      position += c.size;
      --count;
    }
    return position;
  }

 private:
  const char* data_;
  size_t size_;
  ClassBits stop_;
  ClassBits only_ = 0;
  const ClassBits* table_;
};

// 's 't 're 've 'm 'll 'd at an apostrophe; `position` when there is none. With `fold`, letters of
// either case, and U+017F, which Unicode folds to s.
size_t SkipContraction(const View& view, size_t position, bool fold) {
  const auto letter = [&](size_t i) -> char {
    if (i >= view.size()) return 0;
    const char c = view.byte(i);
    return fold && c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  };
  const char a = letter(position + 1);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return position + 2;
  const char b = letter(position + 2);
  if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) {
    return position + 3;
  }
  if (fold && a == '\xc5' && b == '\xbf') return position + 3;
  return position;
}

// Moves `end` over a run of blanks, and `last` to the last of them.
void SkipBlanks(const View& view, size_t* last, size_t* end) {
  const size_t begin = *end;
  *end = view.SkipAscii<ascii::Blanks>(begin);
  if (*end != begin) *last = *end - 1;
}

// `\s+(?!\S)|\s+` at a white-space character: the run without its last character when something
// follows, unless that is all there is.
size_t SkipSpaces(const View& view, size_t position) {
  size_t last = position;
  size_t end = position;
  for (Character c = view.At(end); c.Has(kSpace); c = view.At(end)) {
    last = end;
    end += c.size;
    if (c.IsBlank()) SkipBlanks(view, &last, &end);
  }
  return view.At(end).IsEnd() || last == position ? end : last;
}

// `\s*[\r\n]+|\s+(?!\S)|\s+` at a white-space character: up to the run's last newline, if it has
// one.
size_t SkipSpacesAndNewlines(const View& view, size_t position) {
  size_t after_newline = 0;
  size_t last = position;
  size_t end = position;
  for (Character c = view.At(end); c.Has(kSpace); c = view.At(end)) {
    last = end;
    end += c.size;
    if (c.IsNewline()) after_newline = end;
    if (c.IsBlank()) SkipBlanks(view, &last, &end);
  }
  if (after_newline != 0) return after_newline;
  return view.At(end).IsEnd() || last == position ? end : last;
}

struct Gpt2 {
  static constexpr ClassBits kStop = 0;
  static size_t Next(const View& view, size_t position) {
    const Character c = view.At(position);
    if (c.first == '\'') {
      const size_t end = SkipContraction(view, position, /*fold=*/false);
      if (end != position) return end;
    }
    // The optional blank before a word, a number or anything else.
    const size_t start = c.IsBlank() ? position + 1 : position;
    const Character d = c.IsBlank() ? view.At(start) : c;
    if (d.Has(kLetter)) return view.SkipLettersAnd(start, kLetter);
    if (d.Has(kNumber)) return view.SkipWhile(start, kNumber);
    if (!d.IsEnd() && !d.Has(kSpace)) return view.SkipWhileNot(start, kSpace | kLetter | kNumber);
    return SkipSpaces(view, position);
  }
};

struct SmolLm {
  static constexpr ClassBits kStop = kNumber;
  static size_t Next(const View& view, size_t position) {
    const Character c = view.AtAny(position);
    return c.Has(kNumber) ? position + c.size : Gpt2::Next(view, position);
  }
};

// Qwen2, Qwen3.5 and Llama 3 differ in the digits they take at once and in what makes a word.
template <int kDigits, ClassBits kWord>
struct Cl100k {
  static constexpr ClassBits kStop = 0;
  static size_t Next(const View& view, size_t position) {
    const Character c = view.At(position);
    if (c.first == '\'') {
      const size_t end = SkipContraction(view, position, /*fold=*/true);
      if (end != position) return end;
    }
    if (c.Has(kLetter)) return view.SkipLettersAnd(position, kWord);
    if (c.Has(kNumber)) return view.SkipAtMost(position, kNumber, kDigits);
    const size_t next = position + c.size;
    if (!c.IsNewline() && view.At(next).Has(kWord)) return view.SkipLettersAnd(next, kWord);
    if (c.Has(kWord)) return next;  // a single mark
    constexpr ClassBits kNotOther = kSpace | kWord | kNumber;
    const size_t start = c.IsBlank() ? next : position;
    const Character d = c.IsBlank() ? view.At(next) : c;
    if (!d.IsEnd() && !d.Has(kNotOther)) {
      return view.SkipNewlines(view.SkipWhileNot(start, kNotOther));
    }
    return SkipSpacesAndNewlines(view, position);
  }
};

struct DeepSeekV3 {
  static constexpr ClassBits kStop = kNumber | kCjkOrKana;
  static constexpr ClassBits kWord = kLetter | kMark;

  // The end of the third pattern's match, or `position` when nothing matches there.
  static size_t Match(const View& view, size_t position, const Character& c) {
    const size_t next = position + c.size;
    if (c.size == 1 && c.Has(kPunctOrSymbol)) {
      const size_t end = view.SkipAscii<ascii::Letters>(next);
      if (end != next) return end;
    }
    if (c.Has(kWord)) return view.SkipLettersAnd(position, kWord);
    if (!c.Has(kPunctOrSymbol) && !c.IsNewline() && view.At(next).Has(kWord)) {
      return view.SkipLettersAnd(next, kWord);
    }
    const size_t start = c.IsBlank() ? next : position;
    if ((c.IsBlank() ? view.At(next) : c).Has(kPunctOrSymbol)) {
      return view.SkipNewlines(view.SkipWhile(start, kPunctOrSymbol));
    }
    return c.Has(kSpace) ? SkipSpacesAndNewlines(view, position) : position;
  }

  static size_t Next(const View& view, size_t position) {
    const Character any = view.AtAny(position);
    if (any.Has(kNumber)) return view.SkipAtMost(position, kNumber, 3);
    // The third pattern also cuts the second one's pieces: at the middle dot, for example.
    return any.Has(kCjkOrKana) ? NextMatch(view.Only(kCjkOrKana), position)
                               : NextMatch(view, position);
  }

  static size_t NextMatch(const View& view, size_t position) {
    // What no alternative matches (control and format characters) is one piece up to the next
    // match.
    size_t unmatched = position;
    for (Character c = view.At(unmatched); !c.IsEnd(); c = view.At(unmatched)) {
      const size_t end = Match(view, unmatched, c);
      if (end != unmatched) return unmatched == position ? end : unmatched;
      unmatched += c.size;
    }
    return unmatched;
  }
};

// Kimi differs in that Han characters stand apart, and in no slash after punctuation.
template <bool kIsKimi>
struct O200k {
  static constexpr ClassBits kStop = 0;

  // [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}] and [\p{Ll}\p{Lm}\p{Lo}\p{M}] overlap in \p{Lm}\p{Lo}\p{M}.
  static bool IsUpper(const Character& c) {
    return !(kIsKimi && c.Has(kHan)) && (c.Has(kMark) || (c.Has(kLetter) && !c.Has(kLower)));
  }
  static bool IsLower(const Character& c) {
    return !(kIsKimi && c.Has(kHan)) && (c.Has(kMark) || (c.Has(kLetter) && !c.Has(kUpperOrTitle)));
  }

  static size_t WithContraction(const View& view, size_t position) {
    return position < view.size() && view.byte(position) == '\''
               ? SkipContraction(view, position, /*fold=*/true)
               : position;
  }

  // Ends of the first two alternatives without their optional first character; `position` where one
  // does not match.
  struct Ends {
    size_t mixed;
    size_t upper;
  };
  static Ends Words(const View& view, size_t position) {
    size_t end = position;
    size_t after_both = position;  // after the last character of the run that is in both classes
    for (Character c = view.At(end); !c.IsEnd() && IsUpper(c); c = view.At(end)) {
      end += c.size;
      if (IsLower(c)) after_both = end;
    }
    size_t mixed = view.SkipAscii<ascii::LowerLetters>(end);
    for (Character c = view.At(mixed); !c.IsEnd() && IsLower(c); c = view.At(mixed))
      mixed += c.size;
    // Without a lower-case run, the first alternative gives characters back until one is in both.
    if (mixed == end) mixed = after_both;
    return {mixed == position ? position : WithContraction(view, mixed),
            end == position ? position : WithContraction(view, end)};
  }

  // The end of the first two alternatives' match, or `position`.
  static size_t Word(const View& view, size_t position, const Character& c) {
    const Ends plain = Words(view, position);
    if (c.Has(kLetter | kNumber) || c.IsNewline()) {
      return plain.mixed != position ? plain.mixed : plain.upper;
    }
    // `c` may be the optional first character; a mark may also begin the word itself.
    const size_t next = position + c.size;
    const Ends prefixed = Words(view, next);
    if (prefixed.mixed != next) return prefixed.mixed;
    if (plain.mixed != position) return plain.mixed;
    return prefixed.upper != next ? prefixed.upper : plain.upper;
  }

  static size_t Next(const View& view, size_t position) {
    const Character c = view.At(position);
    if (kIsKimi && c.Has(kHan)) return view.SkipWhile(position, kHan);
    const size_t next = position + c.size;
    const size_t end = Word(view, position, c);
    if (end != position) return end;
    if (c.Has(kNumber)) return view.SkipAtMost(position, kNumber, 3);
    constexpr ClassBits kNotOther = kSpace | kLetter | kNumber;
    size_t other = c.IsBlank() ? next : position;
    const Character d = c.IsBlank() ? view.At(next) : c;
    if (!d.IsEnd() && !d.Has(kNotOther)) {
      other = view.SkipWhileNot(other, kNotOther);
      if (kIsKimi) return view.SkipNewlines(other);
      while (other < view.size() && (view.At(other).IsNewline() || view.byte(other) == '/'))
        ++other;
      return other;
    }
    return SkipSpacesAndNewlines(view, position);
  }
};

template <typename Pattern>
class PatternScanner final : public Scanner {
 public:
  size_t Scan(std::string_view text, size_t position, std::span<Piece> pieces) const override {
    const View view(text, Pattern::kStop);
    size_t count = 0;
    while (count < pieces.size() && position < text.size()) {
      const size_t end = Pattern::Next(view, position);
      ESSOR_CHECK(end > position);
      pieces[count++] = {static_cast<uint32_t>(position), static_cast<uint32_t>(end)};
      position = end;
    }
    return count;
  }
};

}  // namespace

const Scanner* GetScanner(ScannerKind kind) {
  static const PatternScanner<Gpt2> gpt2;
  static const PatternScanner<SmolLm> smollm;
  static const PatternScanner<Cl100k<1, kLetter>> qwen2;
  static const PatternScanner<Cl100k<1, kLetter | kMark>> qwen35;
  static const PatternScanner<Cl100k<3, kLetter>> llama3;
  static const PatternScanner<DeepSeekV3> deepseek_v3;
  static const PatternScanner<O200k<false>> o200k;
  static const PatternScanner<O200k<true>> kimi;
  switch (kind) {
    case ScannerKind::kGpt2:
      return &gpt2;
    case ScannerKind::kSmolLm:
      return &smollm;
    case ScannerKind::kQwen2:
      return &qwen2;
    case ScannerKind::kQwen35:
      return &qwen35;
    case ScannerKind::kLlama3:
      return &llama3;
    case ScannerKind::kDeepSeekV3:
      return &deepseek_v3;
    case ScannerKind::kO200k:
      return &o200k;
    case ScannerKind::kKimi:
      return &kimi;
  }
  ESSOR_CHECK(false);
}

std::string_view ScannerPattern(ScannerKind kind) {
  switch (kind) {
    case ScannerKind::kGpt2:
    case ScannerKind::kSmolLm:
      return kGpt2Pattern;
    case ScannerKind::kQwen2:
      return kQwen2Pattern;
    case ScannerKind::kQwen35:
      return kQwen35Pattern;
    case ScannerKind::kLlama3:
      return kLlama3Pattern;
    case ScannerKind::kDeepSeekV3:
      return kDeepSeekPattern;
    case ScannerKind::kO200k:
      return kO200kPattern;
    case ScannerKind::kKimi:
      return kKimiPattern;
  }
  ESSOR_CHECK(false);
}

}  // namespace essor::model
