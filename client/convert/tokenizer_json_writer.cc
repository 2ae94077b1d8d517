#include "client/convert/tokenizer_json_writer.h"

#include <algorithm>
#include <string_view>
#include <variant>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "rapidjson/stringbuffer.h"
#include "rapidjson/writer.h"

namespace essor::client {
namespace {

using JsonWriter = rapidjson::Writer<rapidjson::StringBuffer>;

void PutString(JsonWriter& json, std::string_view text) {
  json.String(text.data(), static_cast<rapidjson::SizeType>(text.size()));
}

void PutKey(JsonWriter& json, std::string_view text) {
  json.Key(text.data(), static_cast<rapidjson::SizeType>(text.size()));
}

void PutPattern(JsonWriter& json, bool is_regex, const std::string& pattern) {
  json.Key("pattern"), json.StartObject();
  json.Key(is_regex ? "Regex" : "String"), PutString(json, pattern);
  json.EndObject();
}

struct NormalizerPutter {
  JsonWriter& json;
  void operator()(model::UnicodeForm form) const {
    static constexpr const char* kNames[] = {"NFC", "NFD", "NFKC", "NFKD"};
    json.Key("type"), json.String(kNames[static_cast<size_t>(form)]);
  }
  void operator()(const model::PrependStep& step) const {
    json.Key("type"), json.String("Prepend");
    json.Key("prepend"), PutString(json, step.text);
  }
  void operator()(const model::ReplaceStep& step) const {
    json.Key("type"), json.String("Replace");
    PutPattern(json, step.is_regex, step.pattern);
    json.Key("content"), PutString(json, step.content);
  }
  // Only tokenizer.model files have it, and those are copied.
  void operator()(const model::BlanksStep&) const { ESSOR_CHECK(false); }
};

void PutByteLevel(JsonWriter& json, bool add_prefix_space, bool use_regex) {
  json.Key("type"), json.String("ByteLevel");
  json.Key("add_prefix_space"), json.Bool(add_prefix_space);
  json.Key("trim_offsets"), json.Bool(true);
  json.Key("use_regex"), json.Bool(use_regex);
}

struct PreTokenizerPutter {
  JsonWriter& json;
  void operator()(const model::SplitStep& step) const {
    static constexpr const char* kNames[] = {"Removed", "Isolated", "MergedWithPrevious",
                                             "MergedWithNext", "Contiguous"};
    json.Key("type"), json.String("Split");
    PutPattern(json, step.is_regex, step.pattern);
    json.Key("behavior"), json.String(kNames[static_cast<size_t>(step.behavior)]);
    json.Key("invert"), json.Bool(step.invert);
  }
  void operator()(const model::DigitsStep& step) const {
    json.Key("type"), json.String("Digits");
    json.Key("individual_digits"), json.Bool(step.individual);
  }
  void operator()(const model::ByteLevelStep& step) const {
    PutByteLevel(json, step.add_prefix_space, step.use_regex);
  }
  void operator()(const model::MetaspaceStep& step) const {
    static constexpr const char* kSchemes[] = {"always", "first", "never"};
    json.Key("type"), json.String("Metaspace");
    json.Key("replacement"), PutString(json, step.replacement);
    json.Key("prepend_scheme"), json.String(kSchemes[static_cast<size_t>(step.prepend)]);
    json.Key("split"), json.Bool(step.split);
  }
};

// null, one step, or a sequence of them.
template <typename Putter, typename Step>
void PutSteps(JsonWriter& json, const char* list_key, const std::vector<Step>& steps) {
  if (steps.empty()) {
    json.Null();
    return;
  }
  if (steps.size() > 1) {
    json.StartObject();
    json.Key("type"), json.String("Sequence");
    json.Key(list_key), json.StartArray();
  }
  for (const Step& step : steps) {
    json.StartObject();
    std::visit(Putter{json}, step);
    json.EndObject();
  }
  if (steps.size() > 1) json.EndArray(), json.EndObject();
}

void PutSplitting(JsonWriter& json, const model::TokenizerDefinition& definition) {
  json.Key("normalizer");
  PutSteps<NormalizerPutter>(json, "normalizers", definition.normalizers);
  json.Key("pre_tokenizer");
  PutSteps<PreTokenizerPutter>(json, "pretokenizers", definition.pre_tokenizers);
}

void PutAddedTokens(JsonWriter& json, const std::vector<model::AddedToken>& tokens) {
  json.Key("added_tokens"), json.StartArray();
  for (const model::AddedToken& token : tokens) {
    json.StartObject();
    json.Key("id"), json.Uint(token.id);
    json.Key("content"), PutString(json, token.content);
    json.Key("single_word"), json.Bool(token.single_word);
    json.Key("lstrip"), json.Bool(token.lstrip);
    json.Key("rstrip"), json.Bool(token.rstrip);
    json.Key("normalized"), json.Bool(token.normalized);
    json.Key("special"), json.Bool(token.special);
    json.EndObject();
  }
  json.EndArray();
}

using TextById = absl::flat_hash_map<TokenId, std::string>;

void PutTemplate(JsonWriter& json, const char* key, const model::TokenizerDefinition& definition,
                 const TextById& texts, const std::vector<const char*>& sequences) {
  const auto special = [&](TokenId id, int type) {
    json.StartObject(), json.Key("SpecialToken"), json.StartObject();
    json.Key("id"), PutString(json, texts.at(id));
    json.Key("type_id"), json.Int(type);
    json.EndObject(), json.EndObject();
  };
  json.Key(key), json.StartArray();
  for (int type = 0; type < static_cast<int>(sequences.size()); ++type) {
    for (const TokenId id : definition.prefix) special(id, type);
    json.StartObject(), json.Key("Sequence"), json.StartObject();
    json.Key("id"), json.String(sequences[static_cast<size_t>(type)]);
    json.Key("type_id"), json.Int(type);
    json.EndObject(), json.EndObject();
    for (const TokenId id : definition.suffix) special(id, type);
  }
  json.EndArray();
}

void PutPostProcessor(JsonWriter& json, const model::TokenizerDefinition& definition) {
  json.Key("post_processor");
  if (definition.prefix.empty() && definition.suffix.empty()) {
    json.Null();
    return;
  }
  TextById texts;
  for (const auto& [text, id] : definition.model.vocab) texts.emplace(id, text);
  for (const model::AddedToken& token : definition.added_tokens) {
    texts[token.id] = token.content;
  }
  json.StartObject();
  json.Key("type"), json.String("TemplateProcessing");
  PutTemplate(json, "single", definition, texts, {"A"});
  PutTemplate(json, "pair", definition, texts, {"A", "B"});
  json.Key("special_tokens"), json.StartObject();
  std::vector<TokenId> ids = definition.prefix;
  ids.insert(ids.end(), definition.suffix.begin(), definition.suffix.end());
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  for (const TokenId id : ids) {
    PutKey(json, texts.at(id)), json.StartObject();
    json.Key("id"), PutString(json, texts.at(id));
    json.Key("ids"), json.StartArray(), json.Uint(id), json.EndArray();
    json.Key("tokens"), json.StartArray(), PutString(json, texts.at(id)), json.EndArray();
    json.EndObject();
  }
  json.EndObject(), json.EndObject();
}

void PutModel(JsonWriter& json, const model::BpeDefinition& bpe) {
  json.Key("model"), json.StartObject();
  json.Key("type"), json.String("BPE");
  json.Key("dropout"), json.Null();
  json.Key("unk_token");
  bpe.unk_token ? PutString(json, *bpe.unk_token) : static_cast<void>(json.Null());
  json.Key("continuing_subword_prefix"), json.Null();
  json.Key("end_of_word_suffix"), json.Null();
  json.Key("fuse_unk"), json.Bool(bpe.fuse_unk);
  json.Key("byte_fallback"), json.Bool(false);
  json.Key("ignore_merges"), json.Bool(bpe.ignore_merges);
  json.Key("vocab"), json.StartObject();
  for (const auto& [text, id] : bpe.vocab) PutKey(json, text), json.Uint(id);
  json.EndObject();
  // The older of the two forms, which every version of the library reads. No token of a byte-level
  // vocabulary holds a blank.
  json.Key("merges"), json.StartArray();
  for (const auto& [left, right] : bpe.merges) PutString(json, left + " " + right);
  json.EndArray();
  json.EndObject();
}

}  // namespace

std::string TokenizerJson(const model::TokenizerDefinition& definition) {
  rapidjson::StringBuffer buffer;
  JsonWriter json(buffer);
  json.StartObject();
  json.Key("version"), json.String("1.0");
  json.Key("truncation"), json.Null();
  json.Key("padding"), json.Null();
  PutAddedTokens(json, definition.added_tokens);
  PutSplitting(json, definition);
  PutPostProcessor(json, definition);
  json.Key("decoder"), json.StartObject();
  PutByteLevel(json, true, true);
  json.EndObject();
  PutModel(json, definition.model);
  json.EndObject();
  return absl::StrCat(buffer.GetString(), "\n");
}

std::string SplittingJson(const model::TokenizerDefinition& definition) {
  rapidjson::StringBuffer buffer;
  JsonWriter json(buffer);
  json.StartObject();
  PutSplitting(json, definition);
  json.Key("ignore_merges"), json.Bool(definition.model.ignore_merges);
  json.EndObject();
  return buffer.GetString();
}

}  // namespace essor::client
