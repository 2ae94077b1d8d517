#include "model/tokenizer/tokenizer_json.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>
#include <variant>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"

namespace essor::model {
namespace {

absl::StatusOr<TokenId> CheckedId(uint64_t id, std::string_view path) {
  if (id > kTokenIdMax) {
    return FieldError(path,
                      absl::StrFormat("token id %d; the largest supported is %d", id, kTokenIdMax));
  }
  return static_cast<TokenId>(id);
}

absl::Status ParseVocab(const JsonObject& model, BpeDefinition* bpe) {
  ESSOR_ASSIGN_OR_RETURN(const JsonObject vocab, model.GetObject("vocab"));
  absl::flat_hash_set<std::string> texts;
  absl::flat_hash_map<TokenId, std::string> owners;
  for (const auto& [key, value] : vocab.object) {
    const std::string text(key);
    uint64_t number = 0;
    if (value.get(number) != simdjson::SUCCESS) {
      return FieldError(vocab.PathOf(key), "not a token id");
    }
    ESSOR_ASSIGN_OR_RETURN(const TokenId id, CheckedId(number, vocab.PathOf(key)));
    if (!texts.insert(text).second) return FieldError(vocab.PathOf(key), "given twice");
    const auto [owner, is_new] = owners.try_emplace(id, text);
    if (!is_new) {
      return FieldError(vocab.PathOf(key),
                        absl::StrFormat("id %d already belongs to \"%s\"", id, owner->second));
    }
    bpe->vocab.emplace_back(text, id);
  }
  if (bpe->vocab.empty()) return FieldError(vocab.path, "empty");
  return absl::OkStatus();
}

// A merge is "left right" or ["left", "right"].
absl::StatusOr<std::pair<std::string, std::string>> ParseMerge(simdjson::dom::element element,
                                                               const std::string& path) {
  std::string_view text;
  if (element.get(text) == simdjson::SUCCESS) {
    const size_t blank = text.find(' ');
    if (blank == std::string_view::npos || text.find(' ', blank + 1) != std::string_view::npos) {
      return FieldError(path, absl::StrFormat("\"%s\" is not two tokens", text));
    }
    return std::pair(std::string(text.substr(0, blank)), std::string(text.substr(blank + 1)));
  }
  simdjson::dom::array pair;
  std::string_view left;
  std::string_view right;
  if (element.get(pair) != simdjson::SUCCESS || pair.size() != 2 ||
      pair.at(0).get(left) != simdjson::SUCCESS || pair.at(1).get(right) != simdjson::SUCCESS) {
    return FieldError(path, "neither a string nor a pair of strings");
  }
  return std::pair(std::string(left), std::string(right));
}

absl::Status ParseMerges(const JsonObject& model, BpeDefinition* bpe) {
  ESSOR_ASSIGN_OR_RETURN(const simdjson::dom::array merges, model.GetArray("merges"));
  size_t index = 0;
  for (const simdjson::dom::element element : merges) {
    ESSOR_ASSIGN_OR_RETURN(
        auto merge, ParseMerge(element, absl::StrFormat("%s[%d]", model.PathOf("merges"), index)));
    bpe->merges.push_back(std::move(merge));
    ++index;
  }
  return absl::OkStatus();
}

absl::Status RejectOptions(const JsonObject& model) {
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!model.Find(key).has_value()) continue;
    ESSOR_ASSIGN_OR_RETURN(const std::string value, model.GetString(key));
    if (!value.empty()) return FieldError(model.PathOf(key), "not supported");
  }
  if (const auto dropout = model.Find("dropout")) {
    double value = 0;
    if (dropout->get(value) != simdjson::SUCCESS || value != 0) {
      return FieldError(model.PathOf("dropout"), "not supported");
    }
  }
  return absl::OkStatus();
}

absl::Status ParseBpe(const JsonObject& model, BpeDefinition* bpe) {
  ESSOR_RETURN_IF_ERROR(RejectOptions(model));
  ESSOR_RETURN_IF_ERROR(ParseVocab(model, bpe));
  ESSOR_RETURN_IF_ERROR(ParseMerges(model, bpe));
  if (model.Find("unk_token").has_value()) {
    ESSOR_ASSIGN_OR_RETURN(bpe->unk_token, model.GetString("unk_token"));
  }
  ESSOR_ASSIGN_OR_RETURN(bpe->fuse_unk, model.GetBool("fuse_unk", false));
  ESSOR_ASSIGN_OR_RETURN(bpe->ignore_merges, model.GetBool("ignore_merges", false));
  return absl::OkStatus();
}

// `vocab` is a list of [text, score]; ids are the places in it.
absl::Status ParseUnigram(const JsonObject& model, BpeDefinition* bpe, UnigramDefinition* unigram) {
  ESSOR_ASSIGN_OR_RETURN(const simdjson::dom::array vocab, model.GetArray("vocab"));
  absl::flat_hash_set<std::string> texts;
  double lowest = 0;
  for (const simdjson::dom::element element : vocab) {
    const size_t index = bpe->vocab.size();
    const std::string path = absl::StrFormat("%s[%d]", model.PathOf("vocab"), index);
    simdjson::dom::array entry;
    std::string_view text;
    double score = 0;
    if (element.get(entry) != simdjson::SUCCESS || entry.size() != 2 ||
        entry.at(0).get(text) != simdjson::SUCCESS || entry.at(1).get(score) != simdjson::SUCCESS) {
      return FieldError(path, "not a text with its score");
    }
    ESSOR_ASSIGN_OR_RETURN(const TokenId id, CheckedId(index, path));
    if (!texts.insert(std::string(text)).second) {
      return FieldError(path, absl::StrFormat("\"%s\" is given twice", text));
    }
    bpe->vocab.emplace_back(std::string(text), id);
    unigram->scores.push_back(score);
    lowest = index == 0 ? score : std::min(lowest, score);
  }
  if (bpe->vocab.empty()) return FieldError(model.PathOf("vocab"), "empty");
  unigram->unk_score = lowest - kUnigramUnkPenalty;
  ESSOR_ASSIGN_OR_RETURN(const uint64_t unk, model.GetUnsigned("unk_id"));
  if (unk >= bpe->vocab.size()) {
    return FieldError(model.PathOf("unk_id"), absl::StrFormat("%d is outside the vocabulary of %d",
                                                              unk, bpe->vocab.size()));
  }
  bpe->unk_token = bpe->vocab[unk].first;
  return absl::OkStatus();
}

absl::Status ParseModel(const JsonObject& root, TokenizerDefinition* definition) {
  ESSOR_ASSIGN_OR_RETURN(const JsonObject model, root.GetObject("model"));
  BpeDefinition& bpe = definition->model;
  std::string type = "BPE";
  if (model.Find("type").has_value()) {
    ESSOR_ASSIGN_OR_RETURN(type, model.GetString("type"));
  }
  ESSOR_ASSIGN_OR_RETURN(bpe.byte_fallback, model.GetBool("byte_fallback", false));
  if (bpe.byte_fallback && bpe.byte_level) {
    return FieldError(model.PathOf("byte_fallback"), "not supported by byte-level BPE");
  }
  if (type == "BPE") return ParseBpe(model, &bpe);
  if (type != "Unigram") {
    return FieldError(model.PathOf("type"),
                      absl::StrFormat("\"%s\" is not supported; BPE and Unigram are", type));
  }
  if (bpe.byte_level) return FieldError(model.PathOf("type"), "Unigram with byte-level text");
  return ParseUnigram(model, &bpe, &definition->unigram.emplace());
}

absl::StatusOr<AddedToken> ParseAddedToken(const JsonObject& object) {
  AddedToken token;
  ESSOR_ASSIGN_OR_RETURN(token.content, object.GetString("content"));
  ESSOR_ASSIGN_OR_RETURN(const uint64_t id, object.GetUnsigned("id"));
  ESSOR_ASSIGN_OR_RETURN(token.id, CheckedId(id, object.PathOf("id")));
  ESSOR_RETURN_IF_ERROR(ParseAddedTokenFlags(object, &token));
  return token;
}

absl::Status ParseAddedTokens(const JsonObject& root, TokenizerDefinition* definition) {
  if (!root.Find("added_tokens").has_value()) return absl::OkStatus();
  ESSOR_ASSIGN_OR_RETURN(const simdjson::dom::array tokens, root.GetArray("added_tokens"));
  for (const simdjson::dom::element element : tokens) {
    ESSOR_ASSIGN_OR_RETURN(
        const JsonObject object,
        AsObject(element, absl::StrFormat("added_tokens[%d]", definition->added_tokens.size())));
    ESSOR_ASSIGN_OR_RETURN(AddedToken token, ParseAddedToken(object));
    definition->added_tokens.push_back(std::move(token));
  }
  return absl::OkStatus();
}

// Special tokens are found as added tokens or not at all: the text of one that a user wrote is
// text.
void ExcludeSpecialTokens(TokenizerDefinition* definition) {
  absl::flat_hash_set<TokenId> special;
  for (const AddedToken& token : definition->added_tokens) {
    if (token.special) special.insert(token.id);
  }
  for (size_t i = 0; i < definition->model.vocab.size(); ++i) {
    if (special.contains(definition->model.vocab[i].second)) {
      definition->unigram->scores[i] = -std::numeric_limits<double>::infinity();
    }
  }
}

absl::Status ParseDocument(const JsonObject& root, TokenizerDefinition* definition) {
  ESSOR_RETURN_IF_ERROR(ParsePreTokenizer(root, definition));
  const auto& steps = definition->pre_tokenizers;
  definition->model.byte_level =
      !steps.empty() && std::holds_alternative<ByteLevelStep>(steps.back());
  ESSOR_RETURN_IF_ERROR(ParseModel(root, definition));
  ESSOR_RETURN_IF_ERROR(ParseAddedTokens(root, definition));
  if (definition->unigram.has_value()) ExcludeSpecialTokens(definition);
  ESSOR_RETURN_IF_ERROR(ParseNormalizer(root, definition));
  ESSOR_RETURN_IF_ERROR(ParsePostProcessor(root, definition));
  return ParseDecoder(root, definition);
}

}  // namespace

absl::Status ParseAddedTokenFlags(const JsonObject& object, AddedToken* token) {
  ESSOR_ASSIGN_OR_RETURN(token->special, object.GetBool("special", false));
  ESSOR_ASSIGN_OR_RETURN(token->single_word, object.GetBool("single_word", false));
  ESSOR_ASSIGN_OR_RETURN(token->lstrip, object.GetBool("lstrip", false));
  ESSOR_ASSIGN_OR_RETURN(token->rstrip, object.GetBool("rstrip", false));
  ESSOR_ASSIGN_OR_RETURN(token->normalized, object.GetBool("normalized", !token->special));
  return absl::OkStatus();
}

absl::StatusOr<TokenizerDefinition> ParseTokenizerJson(std::string_view json) {
  TokenizerDefinition definition;
  ESSOR_RETURN_IF_ERROR(ReadJsonObject(json, "tokenizer.json", [&](const JsonObject& root) {
    return ParseDocument(root, &definition);
  }));
  return definition;
}

}  // namespace essor::model
