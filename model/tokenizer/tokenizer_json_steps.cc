// The processing steps of tokenizer.json: normalizer, pre_tokenizer, post_processor, decoder.
#include <array>
#include <string>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "model/tokenizer/tokenizer_json.h"
#include "model/tokenizer/utf8.h"

namespace essor::model {
namespace {

// Sequences may hold sequences; simdjson bounds the nesting of the document at 1024, this bounds
// what is sensible.
constexpr int kSequenceDepthMax = 16;

// Calls parse(step, depth + 1) for each object in the array object.key.
template <typename Parse>
absl::Status ForEachStep(const JsonObject& object, std::string_view key, int depth, Parse parse) {
  if (depth >= kSequenceDepthMax) return FieldError(object.path, "sequences nested too deep");
  ESSOR_ASSIGN_OR_RETURN(const simdjson::dom::array steps, object.GetArray(key));
  size_t index = 0;
  for (const simdjson::dom::element element : steps) {
    ESSOR_ASSIGN_OR_RETURN(
        const JsonObject step,
        AsObject(element, absl::StrFormat("%s[%d]", object.PathOf(key), index++)));
    ESSOR_RETURN_IF_ERROR(parse(step, depth + 1));
  }
  return absl::OkStatus();
}

absl::Status Unsupported(const JsonObject& step, std::string_view type) {
  return FieldError(step.PathOf("type"), absl::StrFormat("\"%s\" is not supported", type));
}

struct Pattern {
  std::string text;
  bool is_regex = false;
};

// {"String": "..."} or {"Regex": "..."}.
absl::StatusOr<Pattern> ParsePattern(const JsonObject& step) {
  ESSOR_ASSIGN_OR_RETURN(const JsonObject pattern, step.GetObject("pattern"));
  for (const bool is_regex : {false, true}) {
    const char* key = is_regex ? "Regex" : "String";
    if (!pattern.Find(key).has_value()) continue;
    ESSOR_ASSIGN_OR_RETURN(std::string text, pattern.GetString(key));
    return Pattern{.text = std::move(text), .is_regex = is_regex};
  }
  return FieldError(pattern.path, "neither String nor Regex");
}

absl::Status ParseNormalizerStep(const JsonObject& step, int depth,
                                 TokenizerDefinition* definition) {
  ESSOR_ASSIGN_OR_RETURN(const std::string type, step.GetString("type"));
  if (type == "Sequence") {
    return ForEachStep(step, "normalizers", depth, [&](const JsonObject& inner, int inner_depth) {
      return ParseNormalizerStep(inner, inner_depth, definition);
    });
  }
  constexpr std::array<std::pair<std::string_view, UnicodeForm>, 4> kForms = {{
      {"NFC", UnicodeForm::kNfc},
      {"NFD", UnicodeForm::kNfd},
      {"NFKC", UnicodeForm::kNfkc},
      {"NFKD", UnicodeForm::kNfkd},
  }};
  for (const auto& [name, form] : kForms) {
    if (type != name) continue;
    definition->normalizers.emplace_back(form);
    return absl::OkStatus();
  }
  if (type == "Prepend") {
    ESSOR_ASSIGN_OR_RETURN(std::string text, step.GetString("prepend"));
    definition->normalizers.emplace_back(PrependStep{std::move(text)});
    return absl::OkStatus();
  }
  if (type == "Replace") {
    ESSOR_ASSIGN_OR_RETURN(Pattern pattern, ParsePattern(step));
    ESSOR_ASSIGN_OR_RETURN(std::string content, step.GetString("content"));
    definition->normalizers.emplace_back(
        ReplaceStep{std::move(pattern.text), pattern.is_regex, std::move(content)});
    return absl::OkStatus();
  }
  return Unsupported(step, type);
}

absl::StatusOr<SplitStep> ParseSplit(const JsonObject& step) {
  ESSOR_ASSIGN_OR_RETURN(Pattern pattern, ParsePattern(step));
  ESSOR_ASSIGN_OR_RETURN(const std::string name, step.GetString("behavior"));
  ESSOR_ASSIGN_OR_RETURN(const bool invert, step.GetBool("invert", false));
  constexpr std::array<std::pair<std::string_view, SplitBehavior>, 5> kBehaviors = {{
      {"Removed", SplitBehavior::kRemoved},
      {"Isolated", SplitBehavior::kIsolated},
      {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
      {"MergedWithNext", SplitBehavior::kMergedWithNext},
      {"Contiguous", SplitBehavior::kContiguous},
  }};
  for (const auto& [known, behavior] : kBehaviors) {
    if (name == known) {
      return SplitStep{std::move(pattern.text), pattern.is_regex, behavior, invert};
    }
  }
  return FieldError(step.PathOf("behavior"), absl::StrFormat("\"%s\" is not supported", name));
}

absl::StatusOr<MetaspaceStep> ParseMetaspace(const JsonObject& step) {
  MetaspaceStep metaspace;
  ESSOR_ASSIGN_OR_RETURN(metaspace.replacement, step.GetString("replacement"));
  if (CountCodePoints(metaspace.replacement) != 1) {
    return FieldError(step.PathOf("replacement"), "not one character");
  }
  ESSOR_ASSIGN_OR_RETURN(metaspace.split, step.GetBool("split", true));
  // Files of older versions have add_prefix_space instead of the scheme.
  ESSOR_ASSIGN_OR_RETURN(const bool prefix, step.GetBool("add_prefix_space", true));
  std::string scheme = prefix ? "always" : "never";
  if (step.Find("prepend_scheme").has_value()) {
    ESSOR_ASSIGN_OR_RETURN(scheme, step.GetString("prepend_scheme"));
  }
  constexpr std::array<std::pair<std::string_view, MetaspaceStep::Prepend>, 3> kSchemes = {{
      {"always", MetaspaceStep::Prepend::kAlways},
      {"first", MetaspaceStep::Prepend::kFirst},
      {"never", MetaspaceStep::Prepend::kNever},
  }};
  for (const auto& [name, prepend] : kSchemes) {
    if (scheme != name) continue;
    metaspace.prepend = prepend;
    return metaspace;
  }
  return FieldError(step.PathOf("prepend_scheme"),
                    absl::StrFormat("\"%s\" is not supported", scheme));
}

absl::Status ParsePreTokenizerStep(const JsonObject& step, int depth,
                                   TokenizerDefinition* definition) {
  ESSOR_ASSIGN_OR_RETURN(const std::string type, step.GetString("type"));
  if (type == "Sequence") {
    return ForEachStep(step, "pretokenizers", depth, [&](const JsonObject& inner, int inner_depth) {
      return ParsePreTokenizerStep(inner, inner_depth, definition);
    });
  }
  auto& steps = definition->pre_tokenizers;
  if (!steps.empty() && std::holds_alternative<ByteLevelStep>(steps.back())) {
    return FieldError(step.path, "nothing may follow ByteLevel");
  }
  if (type == "ByteLevel") {
    ByteLevelStep byte_level;
    ESSOR_ASSIGN_OR_RETURN(byte_level.add_prefix_space, step.GetBool("add_prefix_space", true));
    ESSOR_ASSIGN_OR_RETURN(byte_level.use_regex, step.GetBool("use_regex", true));
    steps.emplace_back(byte_level);
  } else if (type == "Digits") {
    ESSOR_ASSIGN_OR_RETURN(const bool individual, step.GetBool("individual_digits", false));
    steps.emplace_back(DigitsStep{individual});
  } else if (type == "Split") {
    ESSOR_ASSIGN_OR_RETURN(SplitStep split, ParseSplit(step));
    steps.emplace_back(std::move(split));
  } else if (type == "Metaspace") {
    // Two of them could lengthen each piece again and again.
    const bool second =
        std::any_of(steps.begin(), steps.end(), [](const PreTokenizerStep& earlier) {
          return std::holds_alternative<MetaspaceStep>(earlier);
        });
    if (second) return FieldError(step.path, "a second Metaspace step is not supported");
    ESSOR_ASSIGN_OR_RETURN(MetaspaceStep metaspace, ParseMetaspace(step));
    steps.emplace_back(std::move(metaspace));
  } else {
    return Unsupported(step, type);
  }
  return absl::OkStatus();
}

// The ids of the special token that a template names.
absl::StatusOr<std::vector<TokenId>> TemplateTokenIds(const JsonObject& step,
                                                      const std::string& name) {
  ESSOR_ASSIGN_OR_RETURN(const JsonObject tokens, step.GetObject("special_tokens"));
  ESSOR_ASSIGN_OR_RETURN(const JsonObject token, tokens.GetObject(name));
  ESSOR_ASSIGN_OR_RETURN(const simdjson::dom::array ids, token.GetArray("ids"));
  std::vector<TokenId> result;
  for (const simdjson::dom::element element : ids) {
    uint64_t id = 0;
    if (element.get(id) != simdjson::SUCCESS || id > UINT32_MAX - 1) {
      return FieldError(token.PathOf("ids"), "not token ids");
    }
    result.push_back(static_cast<TokenId>(id));
  }
  return result;
}

// `single` is a list of {"SpecialToken": {"id": name}} and one {"Sequence": {"id": "A"}}.
absl::Status ParseTemplate(const JsonObject& step, TokenizerDefinition* definition) {
  ESSOR_ASSIGN_OR_RETURN(const simdjson::dom::array single, step.GetArray("single"));
  std::vector<TokenId> before;
  std::vector<TokenId> after;
  bool seen_text = false;
  size_t index = 0;
  for (const simdjson::dom::element element : single) {
    ESSOR_ASSIGN_OR_RETURN(
        const JsonObject item,
        AsObject(element, absl::StrFormat("%s[%d]", step.PathOf("single"), index++)));
    if (item.Find("SpecialToken").has_value()) {
      ESSOR_ASSIGN_OR_RETURN(const JsonObject special, item.GetObject("SpecialToken"));
      ESSOR_ASSIGN_OR_RETURN(const std::string name, special.GetString("id"));
      ESSOR_ASSIGN_OR_RETURN(const std::vector<TokenId> ids, TemplateTokenIds(step, name));
      auto& target = seen_text ? after : before;
      target.insert(target.end(), ids.begin(), ids.end());
      continue;
    }
    ESSOR_ASSIGN_OR_RETURN(const JsonObject sequence, item.GetObject("Sequence"));
    ESSOR_ASSIGN_OR_RETURN(const std::string name, sequence.GetString("id"));
    if (name != "A" || seen_text) {
      return FieldError(sequence.path, "a template must hold the sequence A exactly once");
    }
    seen_text = true;
  }
  if (!seen_text) {
    return FieldError(step.PathOf("single"), "a template must hold the sequence A exactly once");
  }
  definition->prefix.insert(definition->prefix.begin(), before.begin(), before.end());
  definition->suffix.insert(definition->suffix.end(), after.begin(), after.end());
  return absl::OkStatus();
}

absl::Status ParsePostProcessorStep(const JsonObject& step, int depth,
                                    TokenizerDefinition* definition) {
  ESSOR_ASSIGN_OR_RETURN(const std::string type, step.GetString("type"));
  if (type == "Sequence") {
    return ForEachStep(step, "processors", depth, [&](const JsonObject& inner, int inner_depth) {
      return ParsePostProcessorStep(inner, inner_depth, definition);
    });
  }
  if (type == "ByteLevel") return absl::OkStatus();  // moves offsets only, which nobody asks for
  if (type == "TemplateProcessing") return ParseTemplate(step, definition);
  return Unsupported(step, type);
}

absl::Status ParseByteLevelDecoder(const JsonObject& step, int depth) {
  ESSOR_ASSIGN_OR_RETURN(const std::string type, step.GetString("type"));
  if (type == "Sequence") return ForEachStep(step, "decoders", depth, ParseByteLevelDecoder);
  // Fuse joins what ByteLevel has joined already.
  return type == "ByteLevel" || type == "Fuse" ? absl::OkStatus() : Unsupported(step, type);
}

// What a step of decoding plain text works on; steps must come in this order.
enum class DecoderStage { kTokens, kBytes, kText };

// Each replacement goes over every token once.
absl::Status CheckRoom(const JsonObject& step, const DecoderDefinition& decoder) {
  constexpr size_t kReplacementsMax = 16;
  if (decoder.replacements.size() < kReplacementsMax) return absl::OkStatus();
  return FieldError(step.path, absl::StrFormat("more than %d replacements", kReplacementsMax));
}

absl::Status ParseDecoderReplace(const JsonObject& step, DecoderDefinition* decoder) {
  ESSOR_ASSIGN_OR_RETURN(Pattern pattern, ParsePattern(step));
  if (pattern.is_regex || pattern.text.empty()) {
    return FieldError(step.PathOf("pattern"), "only a String with text is supported here");
  }
  ESSOR_ASSIGN_OR_RETURN(std::string content, step.GetString("content"));
  ESSOR_RETURN_IF_ERROR(CheckRoom(step, *decoder));
  decoder->replacements.emplace_back(std::move(pattern.text), std::move(content));
  return absl::OkStatus();
}

absl::Status ParseDecoderMetaspace(const JsonObject& step, DecoderDefinition* decoder) {
  ESSOR_ASSIGN_OR_RETURN(MetaspaceStep metaspace, ParseMetaspace(step));
  ESSOR_RETURN_IF_ERROR(CheckRoom(step, *decoder));
  decoder->replacements.emplace_back(std::move(metaspace.replacement), " ");
  if (metaspace.prepend != MetaspaceStep::Prepend::kNever) {
    decoder->start = TextStart::kDropBlanksOfFirstToken;
  }
  return absl::OkStatus();
}

absl::Status ParseDecoderStrip(const JsonObject& step, DecoderDefinition* decoder) {
  ESSOR_ASSIGN_OR_RETURN(const std::string content, step.GetString("content"));
  ESSOR_ASSIGN_OR_RETURN(const uint64_t start, step.GetUnsigned("start"));
  ESSOR_ASSIGN_OR_RETURN(const uint64_t stop, step.GetUnsigned("stop"));
  if (content != " " || start > 1 || stop != 0 || decoder->start != TextStart::kAsIs) {
    return FieldError(step.path, "only one blank at the start of a text may be stripped");
  }
  if (start == 1) decoder->start = TextStart::kDropBlank;
  return absl::OkStatus();
}

absl::Status ParsePlainDecoder(const JsonObject& step, int depth, DecoderStage* stage,
                               DecoderDefinition* decoder) {
  ESSOR_ASSIGN_OR_RETURN(const std::string type, step.GetString("type"));
  if (type == "Sequence") {
    return ForEachStep(step, "decoders", depth, [&](const JsonObject& inner, int inner_depth) {
      return ParsePlainDecoder(inner, inner_depth, stage, decoder);
    });
  }
  const auto misplaced = [&] {
    return FieldError(step.path, absl::StrFormat("%s is not supported in this place", type));
  };
  if (type == "Replace" || type == "Metaspace") {
    if (*stage != DecoderStage::kTokens) return misplaced();
    return type == "Replace" ? ParseDecoderReplace(step, decoder)
                             : ParseDecoderMetaspace(step, decoder);
  }
  if (type == "ByteFallback") {
    if (*stage != DecoderStage::kTokens) return misplaced();
    *stage = DecoderStage::kBytes;
    decoder->byte_fallback = true;
    return absl::OkStatus();
  }
  if (type == "Fuse") {
    *stage = DecoderStage::kText;
    return absl::OkStatus();
  }
  if (type == "Strip") {
    return *stage == DecoderStage::kText ? ParseDecoderStrip(step, decoder) : misplaced();
  }
  return Unsupported(step, type);
}

}  // namespace

absl::Status ParseNormalizer(const JsonObject& root, TokenizerDefinition* definition) {
  if (!root.Find("normalizer").has_value()) return absl::OkStatus();
  ESSOR_ASSIGN_OR_RETURN(const JsonObject step, root.GetObject("normalizer"));
  return ParseNormalizerStep(step, 0, definition);
}

absl::Status ParsePreTokenizer(const JsonObject& root, TokenizerDefinition* definition) {
  if (!root.Find("pre_tokenizer").has_value()) return absl::OkStatus();
  ESSOR_ASSIGN_OR_RETURN(const JsonObject step, root.GetObject("pre_tokenizer"));
  return ParsePreTokenizerStep(step, 0, definition);
}

absl::Status ParsePostProcessor(const JsonObject& root, TokenizerDefinition* definition) {
  if (!root.Find("post_processor").has_value()) return absl::OkStatus();
  ESSOR_ASSIGN_OR_RETURN(const JsonObject step, root.GetObject("post_processor"));
  return ParsePostProcessorStep(step, 0, definition);
}

absl::Status ParseDecoder(const JsonObject& root, TokenizerDefinition* definition) {
  const bool byte_level = definition->model.byte_level;
  if (byte_level && !root.Find("decoder").has_value()) return absl::OkStatus();
  ESSOR_ASSIGN_OR_RETURN(const JsonObject step, root.GetObject("decoder"));
  if (byte_level) return ParseByteLevelDecoder(step, 0);
  DecoderStage stage = DecoderStage::kTokens;
  return ParsePlainDecoder(step, 0, &stage, &definition->decoder);
}

}  // namespace essor::model
