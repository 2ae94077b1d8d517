#include "model/tokenizer/tokenizer_config.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "model/tokenizer/json_fields.h"
#include "model/tokenizer/tokenizer_json.h"

namespace essor::model {
namespace {

absl::Status ParseAddedTokens(const JsonObject& root, TokenizerConfig* config) {
  if (!root.Find("added_tokens_decoder").has_value()) return absl::OkStatus();
  ESSOR_ASSIGN_OR_RETURN(const JsonObject tokens, root.GetObject("added_tokens_decoder"));
  for (const auto& [key, value] : tokens.object) {
    ESSOR_ASSIGN_OR_RETURN(const JsonObject object, AsObject(value, tokens.PathOf(key)));
    AddedToken token;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), token.id);
    if (error != std::errc() || end != key.data() + key.size() || token.id > kTokenIdMax) {
      return FieldError(object.path, "the key is not a token id");
    }
    ESSOR_ASSIGN_OR_RETURN(token.content, object.GetString("content"));
    ESSOR_RETURN_IF_ERROR(ParseAddedTokenFlags(object, &token));
    config->added_tokens.push_back(std::move(token));
  }
  std::sort(config->added_tokens.begin(), config->added_tokens.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  return absl::OkStatus();
}

// A string, or an object with the text in "content"; empty when absent.
absl::StatusOr<std::string> TokenText(const JsonObject& root, std::string_view key) {
  const auto element = root.Find(key);
  if (!element.has_value()) return std::string();
  if (!element->is_object()) return root.GetString(key);
  ESSOR_ASSIGN_OR_RETURN(const JsonObject token, root.GetObject(key));
  return token.GetString("content");
}

absl::StatusOr<std::optional<bool>> OptionalBool(const JsonObject& root, std::string_view key) {
  if (!root.Find(key).has_value()) return std::optional<bool>();
  ESSOR_ASSIGN_OR_RETURN(const bool value, root.GetBool(key, false));
  return std::optional<bool>(value);
}

absl::Status ParseFields(const JsonObject& root, TokenizerConfig* config) {
  if (root.Find("tokenizer_class").has_value()) {
    ESSOR_ASSIGN_OR_RETURN(config->tokenizer_class, root.GetString("tokenizer_class"));
  }
  ESSOR_RETURN_IF_ERROR(ParseAddedTokens(root, config));
  ESSOR_ASSIGN_OR_RETURN(config->bos_token, TokenText(root, "bos_token"));
  ESSOR_ASSIGN_OR_RETURN(config->eos_token, TokenText(root, "eos_token"));
  ESSOR_ASSIGN_OR_RETURN(config->add_bos_token, OptionalBool(root, "add_bos_token"));
  ESSOR_ASSIGN_OR_RETURN(config->add_eos_token, OptionalBool(root, "add_eos_token"));
  ESSOR_ASSIGN_OR_RETURN(config->legacy, root.GetBool("legacy", false));
  return absl::OkStatus();
}

// The id of the token that is `text`; `fallback` for an empty text.
absl::StatusOr<TokenId> FindToken(const TokenizerDefinition& definition, const std::string& text,
                                  std::optional<TokenId> fallback, std::string_view key) {
  for (const AddedToken& token : definition.added_tokens) {
    if (!text.empty() && token.content == text) return token.id;
  }
  for (const auto& [token, id] : definition.model.vocab) {
    if (!text.empty() && token == text) return id;
  }
  if (text.empty() && fallback.has_value()) return *fallback;
  const std::string token =
      text.empty() ? "none is named" : absl::StrFormat("\"%s\" is no token", text);
  return absl::InvalidArgumentError(absl::StrFormat(
      "tokenizer_config.json wants its %s added to every text, but %s", key, token));
}

}  // namespace

absl::Status AddBosAndEos(const TokenizerConfig& config, std::optional<TokenId> bos,
                          std::optional<TokenId> eos, TokenizerDefinition* definition) {
  // The default of transformers' class for SentencePiece models.
  const bool is_llama = config.tokenizer_class.starts_with("LlamaTokenizer");
  if (config.add_bos_token.value_or(is_llama)) {
    ESSOR_ASSIGN_OR_RETURN(const TokenId id,
                           FindToken(*definition, config.bos_token, bos, "bos_token"));
    definition->prefix.push_back(id);
  }
  if (config.add_eos_token.value_or(false)) {
    ESSOR_ASSIGN_OR_RETURN(const TokenId id,
                           FindToken(*definition, config.eos_token, eos, "eos_token"));
    definition->suffix.push_back(id);
  }
  return absl::OkStatus();
}

absl::StatusOr<TokenizerConfig> ParseTokenizerConfig(std::string_view json) {
  TokenizerConfig config;
  if (json.empty()) return config;
  ESSOR_RETURN_IF_ERROR(ReadJsonObject(json, "tokenizer_config.json", [&](const JsonObject& root) {
    return ParseFields(root, &config);
  }));
  return config;
}

}  // namespace essor::model
