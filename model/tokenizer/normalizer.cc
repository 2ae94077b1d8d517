#include "model/tokenizer/normalizer.h"

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/stringpiece.h>

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "model/tokenizer/ascii_runs.h"

namespace essor::model {
namespace {

const icu::Normalizer2* GetForm(UnicodeForm form, UErrorCode* error) {
  switch (form) {
    case UnicodeForm::kNfc:
      return icu::Normalizer2::getNFCInstance(*error);
    case UnicodeForm::kNfd:
      return icu::Normalizer2::getNFDInstance(*error);
    case UnicodeForm::kNfkc:
      return icu::Normalizer2::getNFKCInstance(*error);
    case UnicodeForm::kNfkd:
      return icu::Normalizer2::getNFKDInstance(*error);
  }
  return nullptr;
}

bool IsAscii(std::string_view text) { return ascii::SkipRun<ascii::All>(text, 0) == text.size(); }

// True and `*out` when the form differs from the text.
absl::StatusOr<bool> ApplyForm(UnicodeForm form, std::string_view text, std::string* out) {
  if (IsAscii(text)) return false;
  UErrorCode error = U_ZERO_ERROR;
  const icu::Normalizer2* normalizer = GetForm(form, &error);
  if (U_FAILURE(error)) {
    return absl::InternalError(absl::StrFormat("ICU normaliser: %s", u_errorName(error)));
  }
  const icu::StringPiece piece(text.data(), static_cast<int32_t>(text.size()));
  if (normalizer->isNormalizedUTF8(piece, error) && U_SUCCESS(error)) return false;
  icu::StringByteSink<std::string> sink(out, static_cast<int32_t>(text.size()));
  normalizer->normalizeUTF8(0, piece, sink, nullptr, error);
  if (U_FAILURE(error)) {
    return absl::InternalError(absl::StrFormat("ICU normaliser: %s", u_errorName(error)));
  }
  return true;
}

absl::StatusOr<bool> ApplyReplace(const ReplaceStep& step, const Regex* regex,
                                  std::string_view text, std::string* out) {
  std::vector<Piece> matches;
  if (regex != nullptr) {
    Regex::Matcher matcher(*regex);
    ESSOR_RETURN_IF_ERROR(matcher.FindAll(text, &matches));
  } else {
    for (size_t at = text.find(step.pattern); at != std::string_view::npos;
         at = text.find(step.pattern, at + step.pattern.size())) {
      matches.push_back(
          {static_cast<uint32_t>(at), static_cast<uint32_t>(at + step.pattern.size())});
    }
  }
  if (matches.empty()) return false;
  uint32_t copied = 0;
  for (const Piece& match : matches) {
    out->append(text.substr(copied, match.begin - copied));
    out->append(step.content);
    copied = match.end;
  }
  out->append(text.substr(copied));
  return true;
}

// The part of `text` that BlanksStep::remove_extra leaves to be treated: no blank at its start.
std::string_view WithoutLeadingBlanks(std::string_view text) {
  const size_t first = text.find_first_not_of(' ');
  return first == std::string_view::npos ? std::string_view() : text.substr(first);
}

// sentencepiece's Normalizer::Normalize without a character map. True and `*out` when the result
// differs from the text.
bool ApplyBlanks(const BlanksStep& step, std::string_view text, bool at_start, std::string* out) {
  const std::string_view blank = step.escape ? "\u2581" : " ";
  const std::string_view rest = step.remove_extra ? WithoutLeadingBlanks(text) : text;
  if (rest.empty()) return !text.empty();
  const bool dummy = step.add_dummy && (at_start || !step.at_start_only);
  if (dummy) out->append(blank);
  bool after_blank = false;
  for (const char c : rest) {
    if (c != ' ') {
      out->push_back(c);
    } else if (!step.remove_extra || !after_blank) {
      out->append(blank);
    }
    after_blank = c == ' ';
  }
  while (step.remove_extra && out->ends_with(blank)) out->resize(out->size() - blank.size());
  return *out != text;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Normalizer>> Normalizer::Create(std::vector<NormalizerStep> steps) {
  auto result = std::unique_ptr<Normalizer>(new Normalizer());
  for (NormalizerStep& definition : steps) {
    Step step{.definition = std::move(definition), .regex = nullptr};
    if (const auto* replace = std::get_if<ReplaceStep>(&step.definition)) {
      if (replace->pattern.empty()) {
        return absl::InvalidArgumentError("normalizer: Replace with an empty pattern");
      }
      if (replace->is_regex) {
        ESSOR_ASSIGN_OR_RETURN(step.regex, Regex::Compile(replace->pattern));
      }
    }
    result->steps_.push_back(std::move(step));
  }
  return result;
}

absl::StatusOr<std::string_view> Normalizer::Apply(std::string_view text, bool at_start,
                                                   size_t max_bytes, std::string* buffer) const {
  std::string_view current = text;
  for (const Step& step : steps_) {
    std::string next;
    bool changed = false;
    if (const auto* form = std::get_if<UnicodeForm>(&step.definition)) {
      ESSOR_ASSIGN_OR_RETURN(changed, ApplyForm(*form, current, &next));
    } else if (const auto* replace = std::get_if<ReplaceStep>(&step.definition)) {
      ESSOR_ASSIGN_OR_RETURN(changed, ApplyReplace(*replace, step.regex.get(), current, &next));
    } else if (const auto* blanks = std::get_if<BlanksStep>(&step.definition)) {
      changed = ApplyBlanks(*blanks, current, at_start, &next);
    } else if (!current.empty()) {
      next = std::get<PrependStep>(step.definition).text;
      next.append(current);
      changed = true;
    }
    if (!changed) continue;
    if (next.size() > max_bytes) {
      return absl::ResourceExhaustedError(
          absl::StrFormat("normalised text of %d bytes; the limit is %d", next.size(), max_bytes));
    }
    *buffer = std::move(next);
    current = *buffer;
  }
  return current;
}

}  // namespace essor::model
