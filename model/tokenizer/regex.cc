#include "model/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"

namespace essor::model {
namespace {

// A run of n characters costs the JIT's limit about n; text is capped at 256 MiB by the tokenizer.
constexpr uint32_t kMatchLimit = 1u << 30;
constexpr size_t kJitStackStart = 32 * 1024;
constexpr size_t kJitStackMax = 64 * 1024 * 1024;
constexpr size_t kPatternBytesMax = 64 * 1024;
// White_Space, as the inside of a class: \p{Z} and the control characters. PCRE2's own \s has
// U+180E.
constexpr std::string_view kWhiteSpace = "\\t\\n\\x{0b}\\f\\r\\x{85}\\p{Z}";

// The escape at pattern[i] == '\\', rewritten; advances `i` behind it.
absl::StatusOr<std::string> TranslateEscape(std::string_view pattern, bool in_class, size_t* i) {
  const std::string_view rest = pattern.substr(*i);
  for (const std::string_view han : {"\\p{Han}", "\\P{Han}"}) {
    if (rest.substr(0, han.size()) != han) continue;
    *i += han.size();
    return absl::StrFormat("\\%c{sc:Han}", han[1]);
  }
  if (rest.size() < 2) return absl::InvalidArgumentError("regular expression ends in a backslash");
  *i += 2;
  switch (rest[1]) {
    case 's':
      return in_class ? std::string(kWhiteSpace) : absl::StrFormat("[%s]", kWhiteSpace);
    case 'S':
      // Inside a class it cannot be written as a list; U+180E is then the only difference.
      return in_class ? std::string("\\S") : absl::StrFormat("[^%s]", kWhiteSpace);
    case 'h':
    case 'H':
      return absl::InvalidArgumentError("\\h in a regular expression is not supported");
    default:
      return std::string(rest.substr(0, 2));
  }
}

absl::StatusOr<std::string> Translate(std::string_view pattern) {
  std::string out;
  int class_depth = 0;
  for (size_t i = 0; i < pattern.size();) {
    const char c = pattern[i];
    if (c == '\\') {
      ESSOR_ASSIGN_OR_RETURN(const std::string escape,
                             TranslateEscape(pattern, class_depth > 0, &i));
      out += escape;
      continue;
    }
    if (class_depth > 0 && c == '&' && pattern.substr(i, 2) == "&&") {
      return absl::InvalidArgumentError("class intersection (&&) is not supported");
    }
    if (class_depth > 0 && c == '[' && pattern.substr(i, 2) != "[:") {
      return absl::InvalidArgumentError("a class inside a class is not supported");
    }
    if (class_depth > 0 && pattern.substr(i, 2) == "[:") {  // [:alpha:]
      const size_t close = pattern.find(":]", i);
      if (close == std::string_view::npos) {
        return absl::InvalidArgumentError("unterminated [: in a class");
      }
      out += pattern.substr(i, close + 2 - i);
      i = close + 2;
      continue;
    }
    if (c == '[') {
      ++class_depth;
      out += c;
      ++i;
      // A bracket right after the opening is a member of the class.
      if (i < pattern.size() && pattern[i] == '^') out += pattern[i++];
      if (i < pattern.size() && pattern[i] == ']') out += pattern[i++];
      continue;
    }
    if (c == ']' && class_depth > 0) --class_depth;
    out += c;
    ++i;
  }
  return out;
}

}  // namespace

struct Regex::Compiled {
  ~Compiled() { pcre2_code_free(code); }
  pcre2_code* code = nullptr;
};

struct Regex::Matcher::State {
  explicit State(const pcre2_code* compiled)
      : code(compiled),
        data(pcre2_match_data_create_from_pattern(compiled, nullptr)),
        context(pcre2_match_context_create(nullptr)),
        stack(pcre2_jit_stack_create(kJitStackStart, kJitStackMax, nullptr)) {
    if (context == nullptr) return;
    pcre2_set_match_limit(context, kMatchLimit);
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~State() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }

  const pcre2_code* code;
  pcre2_match_data* data;
  pcre2_match_context* context;
  pcre2_jit_stack* stack;
};

Regex::Regex(std::unique_ptr<Compiled> compiled) : compiled_(std::move(compiled)) {}
Regex::~Regex() = default;

absl::StatusOr<std::unique_ptr<Regex>> Regex::Compile(std::string_view pattern) {
  if (pattern.size() > kPatternBytesMax) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "regular expression of %d bytes; the limit is %d", pattern.size(), kPatternBytesMax));
  }
  absl::StatusOr<std::string> translated = Translate(pattern);
  if (!translated.ok()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: %s", std::string(translated.status().message()), pattern));
  }
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto compiled = std::make_unique<Compiled>();
  compiled->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated->data()), translated->size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error, &offset, nullptr);
  if (compiled->code == nullptr) {
    PCRE2_UCHAR message[256];
    pcre2_get_error_message(error, message, sizeof(message));
    return absl::InvalidArgumentError(
        absl::StrFormat("regular expression %s: %s", pattern, reinterpret_cast<char*>(message)));
  }
  // Without a JIT (a hardened kernel may refuse executable memory) the interpreter does the same.
  (void)pcre2_jit_compile(compiled->code, PCRE2_JIT_COMPLETE);
  return std::unique_ptr<Regex>(new Regex(std::move(compiled)));
}

Regex::Matcher::Matcher(const Regex& regex)
    : state_(std::make_unique<State>(regex.compiled_->code)) {}
Regex::Matcher::~Matcher() = default;

absl::Status Regex::Matcher::FindAll(std::string_view text, std::vector<Piece>* matches) {
  const State& state = *state_;
  if (state.data == nullptr || state.context == nullptr || state.stack == nullptr) {
    return absl::ResourceExhaustedError("no memory for a regular expression match");
  }
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  size_t position = 0;
  while (position < text.size()) {
    // NOTEMPTY: an empty match splits nothing, so the search goes on for one that is not.
    const int rc = pcre2_match(state.code, subject, text.size(), position,
                               PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, state.data, state.context);
    if (rc == PCRE2_ERROR_NOMATCH) return absl::OkStatus();
    if (rc < 0) {
      return absl::ResourceExhaustedError(absl::StrFormat(
          "pre-tokeniser's regular expression failed at byte %d (PCRE2 error %d)", position, rc));
    }
    const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(state.data);
    matches->push_back({static_cast<uint32_t>(offsets[0]), static_cast<uint32_t>(offsets[1])});
    position = offsets[1];
  }
  return absl::OkStatus();
}

}  // namespace essor::model
