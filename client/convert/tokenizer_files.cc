#include "client/convert/tokenizer_files.h"

#include <algorithm>
#include <filesystem>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/convert/tokenizer_json_writer.h"
#include "common/status_macros.h"
#include "model/checkpoint/gguf_metadata.h"
#include "model/checkpoint/output_file.h"
#include "model/source/text_files.h"
#include "model/spec/config_view.h"
#include "model/tokenizer/tokenizer_gguf.h"
#include "model/tokenizer/tokenizer_json.h"
#include "rapidjson/prettywriter.h"
#include "rapidjson/stringbuffer.h"

namespace essor::client {
namespace {

namespace fs = std::filesystem;
using model::GgufMetadataList;
using JsonWriter = rapidjson::PrettyWriter<rapidjson::StringBuffer>;

constexpr const char* kCopied[] = {
    "tokenizer.json",  "tokenizer_config.json",   "generation_config.json", "chat_template.jinja",
    "vocab.json",      "special_tokens_map.json", "added_tokens.json",      "merges.txt",
    "tokenizer.model", "tiktoken.model",
};

// GGUF's key and Hugging Face's for the same token.
struct TokenKey {
  const char* gguf;
  const char* hf;
};
constexpr TokenKey kTokenKeys[] = {
    {"bos", "bos_token"}, {"eos", "eos_token"}, {"unknown", "unk_token"}, {"padding", "pad_token"}};

std::string IdKey(const char* gguf) { return absl::StrCat("tokenizer.ggml.", gguf, "_token_id"); }

// ------------------------------------------------------------- GGUF to Hugging Face

void PutString(JsonWriter& json, const std::string& text) {
  json.String(text.data(), static_cast<rapidjson::SizeType>(text.size()));
}

absl::StatusOr<std::string> TokenizerConfig(const model::GgufFile& file,
                                            const model::TokenizerDefinition& definition,
                                            uint32_t context_tokens) {
  rapidjson::StringBuffer buffer;
  JsonWriter json(buffer);
  json.SetIndent(' ', 2);
  json.StartObject();
  json.Key("tokenizer_class"), json.String("PreTrainedTokenizerFast");
  json.Key("add_bos_token"), json.Bool(!definition.prefix.empty());
  json.Key("add_eos_token"), json.Bool(!definition.suffix.empty());
  json.Key("add_prefix_space"), json.Bool(false);
  json.Key("clean_up_tokenization_spaces"), json.Bool(false);
  json.Key("model_max_length"), json.Uint(context_tokens);
  ESSOR_ASSIGN_OR_RETURN(const std::vector<std::string>* const tokens,
                         model::GgufStrings(file, "tokenizer.ggml.tokens"));
  for (const TokenKey& key : kTokenKeys) {
    const absl::StatusOr<uint64_t> id = model::GgufUint(file, IdKey(key.gguf));
    if (absl::IsNotFound(id.status())) continue;
    if (!id.ok()) return id.status();
    if (*id >= tokens->size()) {
      return absl::InvalidArgumentError(absl::StrCat(file.path(), ": metadata key ",
                                                     IdKey(key.gguf), ": ", *id,
                                                     " is outside the vocabulary"));
    }
    json.Key(key.hf), PutString(json, (*tokens)[*id]);
  }
  const absl::StatusOr<std::string> chat = model::GgufString(file, "tokenizer.chat_template");
  if (!chat.ok() && !absl::IsNotFound(chat.status())) return chat.status();
  if (chat.ok()) json.Key("chat_template"), PutString(json, *chat);
  json.EndObject();
  return absl::StrCat(buffer.GetString(), "\n");
}

std::string GenerationConfig(const model::ModelSpec& spec) {
  rapidjson::StringBuffer buffer;
  JsonWriter json(buffer);
  json.SetIndent(' ', 2);
  json.StartObject();
  if (spec.bos_token) json.Key("bos_token_id"), json.Uint(*spec.bos_token);
  if (!spec.eos_tokens.empty()) {
    json.Key("eos_token_id"), json.StartArray();
    for (const TokenId id : spec.eos_tokens) json.Uint(id);
    json.EndArray();
  }
  json.EndObject();
  return absl::StrCat(buffer.GetString(), "\n");
}

absl::Status WriteFromGguf(const SourceModel& source, const fs::path& directory) {
  ESSOR_RETURN_IF_ERROR(
      model::WriteTextFile(directory / "generation_config.json", GenerationConfig(source.spec)));
  const model::GgufFile& file = *source.gguf;
  if (!file.metadata().contains("tokenizer.ggml.model")) return absl::OkStatus();
  ESSOR_ASSIGN_OR_RETURN(const model::TokenizerDefinition definition,
                         model::ParseGgufTokenizer(file.metadata()));
  ESSOR_RETURN_IF_ERROR(
      model::WriteTextFile(directory / "tokenizer.json", TokenizerJson(definition)));
  ESSOR_ASSIGN_OR_RETURN(const std::string config,
                         TokenizerConfig(file, definition, source.spec.max_context_tokens));
  return model::WriteTextFile(directory / "tokenizer_config.json", config);
}

absl::Status CopyFiles(const fs::path& from, const fs::path& to) {
  for (const char* const name : kCopied) {
    const absl::StatusOr<std::string> text =
        model::ReadTextFile(from / name, model::kMaxTokenizerBytes);
    if (absl::IsNotFound(text.status())) continue;
    if (!text.ok()) return text.status();
    ESSOR_RETURN_IF_ERROR(model::WriteTextFile(to / name, *text));
  }
  return absl::OkStatus();
}

// ------------------------------------------------------------- Hugging Face to GGUF

// The name under which GGUF readers know this way of cutting text; found by asking our reader.
absl::StatusOr<std::string> PreTokenizerName(const model::TokenizerDefinition& definition) {
  const std::string wanted = SplittingJson(definition);
  for (const char* const name :
       {"smollm", "llama-bpe", "qwen2", "gpt-2", "qwen35", "gpt-4o", "deepseek-v3"}) {
    const absl::StatusOr<model::TokenizerDefinition> known = model::ParseGgufTokenizer({
        {"tokenizer.ggml.model", std::string("gpt2")},
        {"tokenizer.ggml.pre", std::string(name)},
        {"tokenizer.ggml.tokens", std::vector<std::string>{"a"}},
        {"tokenizer.ggml.merges", std::vector<std::string>{}},
    });
    if (known.ok() && SplittingJson(*known) == wanted) return std::string(name);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("tokenizer.json: GGUF has no name for this pre-tokenizer: ", wanted));
}

struct Vocabulary {
  std::vector<std::string> tokens;
  std::vector<int64_t> types;  // 1 ordinary, 3 control, 4 user-defined, 5 unused
};

absl::StatusOr<Vocabulary> MakeVocabulary(const model::TokenizerDefinition& definition,
                                          uint32_t vocab_size) {
  Vocabulary vocabulary;
  for (TokenId id = 0; id < vocab_size; ++id) {
    vocabulary.tokens.push_back(absl::StrCat("[PAD", id, "]"));
    vocabulary.types.push_back(5);
  }
  const auto set = [&](TokenId id, const std::string& text, int64_t type) {
    if (id >= vocab_size) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tokenizer.json: id ", id, " is outside the model's vocabulary of ", vocab_size));
    }
    vocabulary.tokens[id] = text;
    vocabulary.types[id] = type;
    return absl::OkStatus();
  };
  for (const auto& [text, id] : definition.model.vocab) ESSOR_RETURN_IF_ERROR(set(id, text, 1));
  for (const model::AddedToken& token : definition.added_tokens) {
    if (token.lstrip || token.rstrip || token.single_word) {
      return absl::InvalidArgumentError(
          absl::StrCat("tokenizer.json: added token ", token.content,
                       ": GGUF cannot say that it takes or needs white space around it"));
    }
    ESSOR_RETURN_IF_ERROR(set(token.id, token.content, token.special ? 3 : 4));
  }
  return vocabulary;
}

// bos_token and the like: a string, or an object with "content".
absl::StatusOr<std::string> TokenText(const model::ConfigView& config, const char* key) {
  if (!config.Has(key)) return std::string();
  if (!config.IsObject(key)) return config.String(key);
  ESSOR_ASSIGN_OR_RETURN(const model::ConfigView token, config.Object(key));
  return token.String("content");
}

// Ids of the tokens that tokenizer_config.json names, and of those that the config ends a sequence
// with: the first two of them, which is what GGUF has keys for.
absl::Status AddTokenIds(const SourceModel& source, const Vocabulary& vocabulary,
                         GgufMetadataList& list) {
  std::vector<TokenId> ends = source.spec.eos_tokens;
  const std::string path = fs::path(source.path) / "tokenizer_config.json";
  const absl::StatusOr<std::string> text = model::ReadTextFile(path, model::kMaxConfigBytes);
  if (!text.ok() && !absl::IsNotFound(text.status())) return text.status();
  ESSOR_ASSIGN_OR_RETURN(const model::ConfigView config,
                         model::ConfigView::Parse(text.ok() ? *text : "{}", path));
  for (const TokenKey& key : kTokenKeys) {
    ESSOR_ASSIGN_OR_RETURN(const std::string token, TokenText(config, key.hf));
    const auto found = std::find(vocabulary.tokens.begin(), vocabulary.tokens.end(), token);
    if (token.empty() || found == vocabulary.tokens.end()) continue;
    const auto id = static_cast<TokenId>(found - vocabulary.tokens.begin());
    if (key.hf == std::string_view("eos_token")) {
      ends.erase(std::remove(ends.begin(), ends.end(), id), ends.end());
      ends.insert(ends.begin(), id);
      continue;
    }
    list.emplace_back(IdKey(key.gguf), uint64_t{id});
  }
  if (!ends.empty()) list.emplace_back(IdKey("eos"), uint64_t{ends[0]});
  if (ends.size() > 1) list.emplace_back(IdKey("eot"), uint64_t{ends[1]});
  return absl::OkStatus();
}

// chat_template.jinja, else the (default) template of tokenizer_config.json; empty for none.
absl::StatusOr<std::string> ChatTemplateText(const fs::path& directory) {
  absl::StatusOr<std::string> file =
      model::ReadTextFile(directory / "chat_template.jinja", model::kMaxConfigBytes);
  if (file.ok() || !absl::IsNotFound(file.status())) return file;
  const std::string path = directory / "tokenizer_config.json";
  const absl::StatusOr<std::string> text = model::ReadTextFile(path, model::kMaxConfigBytes);
  if (absl::IsNotFound(text.status())) return std::string();
  if (!text.ok()) return text.status();
  ESSOR_ASSIGN_OR_RETURN(const model::ConfigView config, model::ConfigView::Parse(*text, path));
  if (!config.IsList("chat_template")) return config.StringOr("chat_template", "");
  ESSOR_ASSIGN_OR_RETURN(const std::vector<model::ConfigView> named,
                         config.Objects("chat_template"));
  for (const model::ConfigView& entry : named) {
    ESSOR_ASSIGN_OR_RETURN(const std::string name, entry.String("name"));
    if (name == "default") return entry.String("template");
  }
  return std::string();
}

absl::StatusOr<GgufMetadataList> FromDirectory(const SourceModel& source) {
  const fs::path directory(source.path);
  const absl::StatusOr<std::string> text =
      model::ReadTextFile(directory / "tokenizer.json", model::kMaxTokenizerBytes);
  if (absl::IsNotFound(text.status())) {
    for (const char* name : {"tokenizer.model", "tiktoken.model"}) {
      if (!fs::exists(directory / name)) continue;
      return absl::InvalidArgumentError(
          absl::StrCat(name, " cannot be written to GGUF; only tokenizer.json can"));
    }
    return GgufMetadataList();
  }
  if (!text.ok()) return text.status();
  ESSOR_ASSIGN_OR_RETURN(const model::TokenizerDefinition definition,
                         model::ParseTokenizerJson(*text));
  if (!definition.model.byte_level) {
    return absl::InvalidArgumentError(
        "tokenizer.json: only byte-level vocabularies can be written to GGUF");
  }
  if (definition.prefix.size() > 1 || definition.suffix.size() > 1) {
    return absl::InvalidArgumentError(
        "tokenizer.json: GGUF cannot say that several tokens surround a text");
  }
  ESSOR_ASSIGN_OR_RETURN(std::string pre, PreTokenizerName(definition));
  ESSOR_ASSIGN_OR_RETURN(Vocabulary vocabulary, MakeVocabulary(definition, source.spec.vocab_size));
  std::vector<std::string> merges;
  for (const auto& [left, right] : definition.model.merges) merges.push_back(left + " " + right);
  GgufMetadataList list;
  list.emplace_back("tokenizer.ggml.model", std::string("gpt2"));
  list.emplace_back("tokenizer.ggml.pre", std::move(pre));
  list.emplace_back("tokenizer.ggml.add_bos_token", !definition.prefix.empty());
  list.emplace_back("tokenizer.ggml.add_eos_token", !definition.suffix.empty());
  ESSOR_RETURN_IF_ERROR(AddTokenIds(source, vocabulary, list));
  list.emplace_back("tokenizer.ggml.tokens", std::move(vocabulary.tokens));
  list.emplace_back("tokenizer.ggml.token_type", std::move(vocabulary.types));
  list.emplace_back("tokenizer.ggml.merges", std::move(merges));
  ESSOR_ASSIGN_OR_RETURN(std::string chat, ChatTemplateText(directory));
  if (!chat.empty()) list.emplace_back("tokenizer.chat_template", std::move(chat));
  return list;
}

}  // namespace

absl::Status WriteTextFiles(const SourceModel& source, const std::string& directory) {
  return source.gguf != nullptr ? WriteFromGguf(source, directory)
                                : CopyFiles(source.path, directory);
}

absl::StatusOr<GgufMetadataList> TokenizerMetadata(const SourceModel& source) {
  GgufMetadataList list;
  if (source.gguf == nullptr) {
    ESSOR_ASSIGN_OR_RETURN(list, FromDirectory(source));
  } else {
    for (const auto& [key, value] : source.gguf->metadata()) {
      if (key.starts_with("tokenizer.")) list.emplace_back(key, value);
    }
  }
  std::sort(list.begin(), list.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  return list;
}

}  // namespace essor::client
