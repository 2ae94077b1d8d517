#include "model/tokenizer/pre_tokenizer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "common/status_macros.h"
#include "model/tokenizer/unicode_classes.h"
#include "model/tokenizer/utf8.h"

namespace essor::model {
namespace {

// A stretch of the text that the pattern matches, or one between matches.
struct Span {
  Piece piece;
  bool is_match;
};

// `matches`, completed by what lies between them, in order.
std::vector<Span> CoverText(uint32_t text_size, const std::vector<Piece>& matches) {
  std::vector<Span> spans;
  uint32_t end = 0;
  for (const Piece& match : matches) {
    if (match.begin != end) spans.push_back({{end, match.begin}, false});
    spans.push_back({match, true});
    end = match.end;
  }
  if (end != text_size) spans.push_back({{end, text_size}, false});
  return spans;
}

// Joins delimiters to their neighbours as `behavior` says; every result is one piece.
std::vector<Piece> ApplyBehavior(const std::vector<Span>& spans, SplitBehavior behavior) {
  std::vector<Piece> pieces;
  bool previous_match = false;
  const auto extend_or_add = [&](const Piece& piece, bool extend) {
    if (extend && !pieces.empty()) {
      pieces.back().begin = std::min(pieces.back().begin, piece.begin);
      pieces.back().end = std::max(pieces.back().end, piece.end);
    } else {
      pieces.push_back(piece);
    }
  };
  switch (behavior) {
    case SplitBehavior::kIsolated:
      for (const Span& span : spans) pieces.push_back(span.piece);
      break;
    case SplitBehavior::kRemoved:
      for (const Span& span : spans) {
        if (!span.is_match) pieces.push_back(span.piece);
      }
      break;
    case SplitBehavior::kContiguous:
      for (const Span& span : spans) {
        extend_or_add(span.piece, span.is_match == previous_match);
        previous_match = span.is_match;
      }
      break;
    case SplitBehavior::kMergedWithPrevious:
      for (const Span& span : spans) {
        extend_or_add(span.piece, span.is_match && !previous_match);
        previous_match = span.is_match;
      }
      break;
    case SplitBehavior::kMergedWithNext:
      for (auto span = spans.rbegin(); span != spans.rend(); ++span) {
        extend_or_add(span->piece, span->is_match && !previous_match);
        previous_match = span->is_match;
      }
      std::reverse(pieces.begin(), pieces.end());
      break;
  }
  return pieces;
}

void AppendShifted(const std::vector<Piece>& pieces, uint32_t offset, std::vector<Piece>* out) {
  for (const Piece& piece : pieces) out->push_back({piece.begin + offset, piece.end + offset});
}

void FindString(std::string_view text, std::string_view pattern, std::vector<Piece>* matches) {
  for (size_t at = text.find(pattern); at != std::string_view::npos;
       at = text.find(pattern, at + pattern.size())) {
    matches->push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(at + pattern.size())});
  }
}

absl::Status RunSplit(const SplitStep& step, const Regex* regex, PreTokenized* state) {
  std::vector<Piece> result;
  std::vector<Piece> matches;
  std::unique_ptr<Regex::Matcher> matcher;
  if (regex != nullptr) matcher = std::make_unique<Regex::Matcher>(*regex);
  for (const Piece& piece : state->pieces) {
    const std::string_view text = piece.In(state->text);
    matches.clear();
    if (matcher != nullptr) {
      ESSOR_RETURN_IF_ERROR(matcher->FindAll(text, &matches));
    } else {
      FindString(text, step.pattern, &matches);
    }
    std::vector<Span> spans = CoverText(static_cast<uint32_t>(text.size()), matches);
    if (step.invert) {
      for (Span& span : spans) span.is_match = !span.is_match;
    }
    AppendShifted(ApplyBehavior(spans, step.behavior), piece.begin, &result);
  }
  state->pieces = std::move(result);
  return absl::OkStatus();
}

void RunDigits(const DigitsStep& step, PreTokenized* state) {
  const UnicodeClasses& classes = UnicodeClasses::Get();
  std::vector<Piece> result;
  std::vector<Piece> digits;
  for (const Piece& piece : state->pieces) {
    const std::string_view text = piece.In(state->text);
    digits.clear();
    for (uint32_t i = 0; i < text.size();) {
      const CodePoint c = DecodeUtf8(text.data() + i);
      if (classes.Of(c.value) & kNumber) digits.push_back({i, i + c.size});
      i += c.size;
    }
    const auto behavior = step.individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous;
    AppendShifted(ApplyBehavior(CoverText(static_cast<uint32_t>(text.size()), digits), behavior),
                  piece.begin, &result);
  }
  state->pieces = std::move(result);
}

// Writes the text anew with a blank before every piece that does not begin with one.
void PrefixBlanks(PreTokenized* state) {
  std::string text;
  std::vector<Piece> pieces;
  for (const Piece& piece : state->pieces) {
    const std::string_view content = piece.In(state->text);
    const auto begin = static_cast<uint32_t>(text.size());
    if (content.front() != ' ') text.push_back(' ');
    text.append(content);
    pieces.push_back({begin, static_cast<uint32_t>(text.size())});
  }
  state->rewritten = std::move(text);
  state->text = state->rewritten;
  state->pieces = std::move(pieces);
}

void RunByteLevel(const ByteLevelStep& step, PreTokenized* state) {
  if (step.add_prefix_space) PrefixBlanks(state);
  if (!step.use_regex) return;
  const Scanner* scanner = GetScanner(ScannerKind::kGpt2);
  std::vector<Piece> result;
  std::array<Piece, 64> batch;
  for (const Piece& piece : state->pieces) {
    const std::string_view text = piece.In(state->text);
    size_t position = 0;
    while (const size_t count = scanner->Scan(text, position, batch)) {
      for (size_t i = 0; i < count; ++i) {
        result.push_back({batch[i].begin + piece.begin, batch[i].end + piece.begin});
      }
      position = batch[count - 1].end;
    }
  }
  state->pieces = std::move(result);
}

void RunMetaspace(const MetaspaceStep& step, bool at_start, PreTokenized* state) {
  std::string text;
  std::vector<Piece> pieces;
  std::vector<Piece> matches;
  for (const Piece& piece : state->pieces) {
    const std::string_view content = piece.In(state->text);
    const auto begin = static_cast<uint32_t>(text.size());
    const bool prepend =
        step.prepend == MetaspaceStep::Prepend::kAlways ||
        (step.prepend == MetaspaceStep::Prepend::kFirst && at_start && piece.begin == 0);
    if (prepend && content.front() != ' ' && !content.starts_with(step.replacement)) {
      text.append(step.replacement);
    }
    for (const char c : content) c == ' ' ? text.append(step.replacement) : text.append(1, c);
    const auto end = static_cast<uint32_t>(text.size());
    if (!step.split) {
      pieces.push_back({begin, end});
      continue;
    }
    matches.clear();
    FindString(std::string_view(text).substr(begin), step.replacement, &matches);
    AppendShifted(ApplyBehavior(CoverText(end - begin, matches), SplitBehavior::kMergedWithNext),
                  begin, &pieces);
  }
  state->rewritten = std::move(text);
  state->text = state->rewritten;
  state->pieces = std::move(pieces);
}

// Whether `step` makes each match of `pattern` a piece. For patterns that match everywhere,
// removing what lies between matches is the same as isolating them.
bool IsolatesMatches(const PreTokenizerStep& step, std::string_view pattern, bool covers_text) {
  const auto* split = std::get_if<SplitStep>(&step);
  if (split == nullptr || !split->is_regex || split->pattern != pattern) return false;
  if (split->behavior == SplitBehavior::kIsolated) return true;
  return covers_text && split->behavior == SplitBehavior::kRemoved && split->invert;
}

const Scanner* RecogniseScanner(const std::vector<PreTokenizerStep>& steps) {
  if (steps.empty()) return nullptr;
  const auto* last = std::get_if<ByteLevelStep>(&steps.back());
  if (last == nullptr || last->add_prefix_space) return nullptr;
  if (last->use_regex) {
    if (steps.size() == 1) return GetScanner(ScannerKind::kGpt2);
    const auto* digits = std::get_if<DigitsStep>(&steps.front());
    const bool smollm = steps.size() == 2 && digits != nullptr && digits->individual;
    return smollm ? GetScanner(ScannerKind::kSmolLm) : nullptr;
  }
  if (steps.size() == 2) {
    for (const ScannerKind kind : {ScannerKind::kGpt2, ScannerKind::kQwen2, ScannerKind::kQwen35,
                                   ScannerKind::kLlama3, ScannerKind::kO200k, ScannerKind::kKimi}) {
      if (IsolatesMatches(steps[0], ScannerPattern(kind), /*covers_text=*/true)) {
        return GetScanner(kind);
      }
    }
  }
  const bool deepseek = steps.size() == 4 && IsolatesMatches(steps[0], kDeepSeekDigits, false) &&
                        IsolatesMatches(steps[1], kDeepSeekCjk, false) &&
                        IsolatesMatches(steps[2], ScannerPattern(ScannerKind::kDeepSeekV3), false);
  return deepseek ? GetScanner(ScannerKind::kDeepSeekV3) : nullptr;
}

}  // namespace

absl::StatusOr<std::unique_ptr<PreTokenizer>> PreTokenizer::Create(
    std::vector<PreTokenizerStep> steps) {
  auto result = std::unique_ptr<PreTokenizer>(new PreTokenizer());
  result->scanner_ = RecogniseScanner(steps);
  for (PreTokenizerStep& definition : steps) {
    Step step{.definition = std::move(definition), .regex = nullptr};
    if (const auto* split = std::get_if<SplitStep>(&step.definition)) {
      if (split->pattern.empty()) {
        return absl::InvalidArgumentError("pre_tokenizer: Split with an empty pattern");
      }
      if (split->is_regex && result->scanner_ == nullptr) {
        ESSOR_ASSIGN_OR_RETURN(step.regex, Regex::Compile(split->pattern));
      }
    }
    result->steps_.push_back(std::move(step));
  }
  return result;
}

absl::Status PreTokenizer::Run(std::string_view text, bool at_start, PreTokenized* result) const {
  result->text = text;
  result->pieces.clear();
  if (text.empty()) return absl::OkStatus();
  if (scanner_ != nullptr) {
    std::array<Piece, 64> batch;
    size_t position = 0;
    while (const size_t count = scanner_->Scan(text, position, batch)) {
      result->pieces.insert(result->pieces.end(), batch.begin(), batch.begin() + count);
      position = batch[count - 1].end;
    }
    return absl::OkStatus();
  }
  result->pieces.push_back({0, static_cast<uint32_t>(text.size())});
  for (const Step& step : steps_) {
    if (const auto* split = std::get_if<SplitStep>(&step.definition)) {
      ESSOR_RETURN_IF_ERROR(RunSplit(*split, step.regex.get(), result));
    } else if (const auto* digits = std::get_if<DigitsStep>(&step.definition)) {
      RunDigits(*digits, result);
    } else if (const auto* metaspace = std::get_if<MetaspaceStep>(&step.definition)) {
      RunMetaspace(*metaspace, at_start, result);
    } else {
      RunByteLevel(std::get<ByteLevelStep>(step.definition), result);
    }
  }
  return absl::OkStatus();
}

}  // namespace essor::model
