#include "model/source/text_files.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "model/chat/deepseek_v32_encoder.h"
#include "model/checkpoint/gguf_metadata.h"
#include "model/checkpoint/mapped_file.h"
#include "model/spec/config_view.h"
#include "model/tokenizer/json_fields.h"
#include "model/tokenizer/sentencepiece.h"
#include "model/tokenizer/tokenizer_config.h"
#include "model/tokenizer/tokenizer_tiktoken.h"

namespace essor::model {
namespace {

std::string PathIn(const std::string& directory, const char* name) {
  return absl::StrCat(directory, "/", name);
}

// Nothing when the file is missing.
absl::StatusOr<std::optional<std::string>> ReadIfPresent(const std::string& path,
                                                         uint64_t max_bytes) {
  absl::StatusOr<std::string> text = ReadTextFile(path, max_bytes);
  if (absl::IsNotFound(text.status())) return std::nullopt;
  ESSOR_RETURN_IF_ERROR(text.status());
  return *std::move(text);
}

absl::StatusOr<std::optional<ConfigView>> ReadConfigIfPresent(const std::string& path) {
  ESSOR_ASSIGN_OR_RETURN(const auto text, ReadIfPresent(path, kMaxConfigBytes));
  if (!text.has_value()) return std::nullopt;
  ESSOR_ASSIGN_OR_RETURN(ConfigView view, ConfigView::Parse(*text, path));
  return view;
}

// A special token: a string, or an object with its text in "content". Empty when absent.
absl::StatusOr<std::string> TokenText(const ConfigView& config, const std::string& key) {
  if (!config.IsObject(key)) return config.StringOr(key, "");
  ESSOR_ASSIGN_OR_RETURN(const ConfigView token, config.Object(key));
  return token.String("content");
}

absl::StatusOr<ChatTemplate::Tokens> ReadTokens(const ConfigView& config) {
  ChatTemplate::Tokens tokens;
  ESSOR_ASSIGN_OR_RETURN(tokens.bos_token, TokenText(config, "bos_token"));
  ESSOR_ASSIGN_OR_RETURN(tokens.eos_token, TokenText(config, "eos_token"));
  ESSOR_ASSIGN_OR_RETURN(tokens.pad_token, TokenText(config, "pad_token"));
  ESSOR_ASSIGN_OR_RETURN(tokens.unk_token, TokenText(config, "unk_token"));
  return tokens;
}

// Nothing when there is no template.
absl::StatusOr<std::optional<std::string>> TemplateIn(const ConfigView& config) {
  constexpr char kKey[] = "chat_template";
  if (!config.Has(kKey)) return std::nullopt;
  if (!config.IsList(kKey)) {
    ESSOR_ASSIGN_OR_RETURN(std::string source, config.String(kKey));
    return source;
  }
  ESSOR_ASSIGN_OR_RETURN(const auto named, config.Objects(kKey));
  for (const ConfigView& entry : named) {
    ESSOR_ASSIGN_OR_RETURN(const std::string name, entry.String("name"));
    if (name != "default") continue;
    ESSOR_ASSIGN_OR_RETURN(std::string source, entry.String("template"));
    return source;
  }
  return std::nullopt;
}

absl::StatusOr<std::unique_ptr<ChatTemplate>> ParseTemplate(const std::string& source,
                                                            ChatTemplate::Tokens tokens,
                                                            const std::string& file) {
  auto parsed = ChatTemplate::Parse(source, std::move(tokens));
  if (!parsed.ok()) return InFile(parsed.status(), file);  // it knows only lines
  return parsed;
}

// What a model that ships a program instead of a template needs; null for all others.
absl::StatusOr<std::unique_ptr<ChatTemplate>> EncoderOf(const std::string& directory) {
  ESSOR_ASSIGN_OR_RETURN(const auto config, ReadConfigIfPresent(PathIn(directory, "config.json")));
  if (!config.has_value()) return std::unique_ptr<ChatTemplate>();
  ESSOR_ASSIGN_OR_RETURN(const std::string type, config->StringOr("model_type", ""));
  return type == "deepseek_v32" ? MakeDeepSeekV32Encoder() : std::unique_ptr<ChatTemplate>();
}

}  // namespace

absl::StatusOr<std::string> ReadTextFile(const std::string& path, uint64_t max_bytes) {
  ESSOR_ASSIGN_OR_RETURN(const auto file, MappedFile::Open(path));
  const auto bytes = file->bytes();
  if (bytes.size() > max_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", bytes.size(), " bytes, more than ",
                                                   max_bytes, " for a file of this kind"));
  }
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

absl::StatusOr<std::unique_ptr<Tokenizer>> OpenTokenizer(const std::string& directory) {
  using Reader =
      absl::StatusOr<std::unique_ptr<Tokenizer>> (*)(std::string_view, const TokenizerConfig&);
  struct Format {
    const char* file;
    uint64_t bytes_max;
    bool needs_config;  // tokenizer_config.json
    Reader read;
  };
  constexpr Format kFormats[] = {
      {"tokenizer.json", kMaxTokenizerBytes, false,
       [](std::string_view json, const TokenizerConfig&) {
         return Tokenizer::FromTokenizerJson(json);
       }},
      {"tiktoken.model", kTiktokenBytesMax, true, Tokenizer::FromTiktoken},
      {"tokenizer.model", kSentencePieceBytesMax, true, Tokenizer::FromSentencePiece},
  };
  for (const Format& format : kFormats) {
    ESSOR_ASSIGN_OR_RETURN(const auto text,
                           ReadIfPresent(PathIn(directory, format.file), format.bytes_max));
    if (!text.has_value()) continue;
    std::optional<std::string> json;
    if (format.needs_config) {
      ESSOR_ASSIGN_OR_RETURN(
          json, ReadIfPresent(PathIn(directory, "tokenizer_config.json"), kMaxConfigBytes));
    }
    const auto config = ParseTokenizerConfig(json.value_or(""));
    if (!config.ok()) return InFile(config.status(), directory);
    auto tokenizer = format.read(*text, *config);
    if (!tokenizer.ok()) return InFile(tokenizer.status(), directory);
    return tokenizer;
  }
  return std::unique_ptr<Tokenizer>();
}

absl::StatusOr<std::unique_ptr<ChatTemplate>> OpenChatTemplate(const std::string& directory) {
  const std::string config_path = PathIn(directory, "tokenizer_config.json");
  ESSOR_ASSIGN_OR_RETURN(const auto config, ReadConfigIfPresent(config_path));
  ESSOR_ASSIGN_OR_RETURN(const auto map,
                         ReadConfigIfPresent(PathIn(directory, "special_tokens_map.json")));
  ChatTemplate::Tokens tokens;
  for (const auto& source : {map, config}) {  // the later one wins
    if (!source.has_value()) continue;
    ESSOR_ASSIGN_OR_RETURN(const ChatTemplate::Tokens found, ReadTokens(*source));
    if (!found.bos_token.empty()) tokens.bos_token = found.bos_token;
    if (!found.eos_token.empty()) tokens.eos_token = found.eos_token;
    if (!found.pad_token.empty()) tokens.pad_token = found.pad_token;
    if (!found.unk_token.empty()) tokens.unk_token = found.unk_token;
  }
  const std::string jinja_path = PathIn(directory, "chat_template.jinja");
  const absl::StatusOr<std::string> jinja = ReadTextFile(jinja_path, kMaxConfigBytes);
  if (jinja.ok()) return ParseTemplate(*jinja, std::move(tokens), jinja_path);
  if (!absl::IsNotFound(jinja.status())) return jinja.status();
  std::optional<std::string> source;
  if (config.has_value()) {
    ESSOR_ASSIGN_OR_RETURN(source, TemplateIn(*config));
  }
  if (!source.has_value()) return EncoderOf(directory);
  return ParseTemplate(*source, std::move(tokens), config_path);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> OpenTokenizer(const GgufFile& file) {
  if (!file.metadata().contains("tokenizer.ggml.model")) return std::unique_ptr<Tokenizer>();
  return Tokenizer::FromGguf(file);
}

absl::StatusOr<std::unique_ptr<ChatTemplate>> OpenChatTemplate(const GgufFile& file) {
  const auto source = GgufString(file, "tokenizer.chat_template");
  if (absl::IsNotFound(source.status())) return std::unique_ptr<ChatTemplate>();
  ESSOR_RETURN_IF_ERROR(source.status());
  ESSOR_ASSIGN_OR_RETURN(const auto texts, GgufStrings(file, "tokenizer.ggml.tokens"));
  ChatTemplate::Tokens tokens;
  for (const auto& [name, text] :
       {std::pair{"bos", &tokens.bos_token}, std::pair{"eos", &tokens.eos_token},
        std::pair{"padding", &tokens.pad_token}, std::pair{"unknown", &tokens.unk_token}}) {
    const std::string key = absl::StrCat("tokenizer.ggml.", name, "_token_id");
    const absl::StatusOr<uint64_t> id = GgufUint(file, key);
    if (absl::IsNotFound(id.status())) continue;
    ESSOR_RETURN_IF_ERROR(id.status());
    if (*id >= texts->size()) {
      return absl::InvalidArgumentError(absl::StrCat(file.path(), ": metadata key ", key, ": ", *id,
                                                     " is outside the ", texts->size(), " tokens"));
    }
    *text = (*texts)[*id];
  }
  return ParseTemplate(*source, std::move(tokens),
                       absl::StrCat(file.path(), ": tokenizer.chat_template"));
}

}  // namespace essor::model
