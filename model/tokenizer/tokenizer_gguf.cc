#include "model/tokenizer/tokenizer_gguf.h"

#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "model/tokenizer/pipeline_tokenizer.h"
#include "model/tokenizer/tokenizer_tiktoken.h"
#include "model/tokenizer/utf8.h"

namespace essor::model {
namespace {

using Metadata = absl::flat_hash_map<std::string, GgufValue>;

constexpr std::string_view kKimiPre = "kimi-k2";

// Values of tokenizer.ggml.token_type that matter here; 1 is an ordinary token, 5 an unused one.
constexpr int64_t kControlToken = 3;
constexpr int64_t kUserDefinedToken = 4;

absl::Status KeyError(const std::string& key, std::string_view problem) {
  return absl::InvalidArgumentError(absl::StrFormat("GGUF key %s: %s", key, problem));
}

template <typename T>
absl::StatusOr<const T*> Get(const Metadata& metadata, const std::string& key) {
  const auto it = metadata.find(key);
  if (it == metadata.end()) return KeyError(key, "missing");
  const T* value = std::get_if<T>(&it->second);
  if (value == nullptr) return KeyError(key, "has another type than expected");
  return value;
}

// An integer of either signedness; nullopt when absent.
absl::StatusOr<std::optional<uint64_t>> GetOptionalId(const Metadata& metadata,
                                                      const std::string& key) {
  const auto it = metadata.find(key);
  if (it == metadata.end()) return std::optional<uint64_t>();
  if (const auto* value = std::get_if<uint64_t>(&it->second)) return std::optional(*value);
  if (const auto* value = std::get_if<int64_t>(&it->second); value != nullptr && *value >= 0) {
    return std::optional(static_cast<uint64_t>(*value));
  }
  return KeyError(key, "not a token id");
}

absl::StatusOr<bool> GetBool(const Metadata& metadata, const std::string& key, bool absent) {
  if (!metadata.contains(key)) return absent;
  ESSOR_ASSIGN_OR_RETURN(const bool* value, Get<bool>(metadata, key));
  return *value;
}

absl::StatusOr<std::vector<int64_t>> GetTokenTypes(const Metadata& metadata, size_t count) {
  const std::string key = "tokenizer.ggml.token_type";
  if (!metadata.contains(key)) return std::vector<int64_t>(count, 1);
  std::vector<int64_t> types;
  const GgufValue& value = metadata.at(key);
  if (const auto* list = std::get_if<std::vector<int64_t>>(&value)) {
    types = *list;
  } else if (const auto* unsigned_list = std::get_if<std::vector<uint64_t>>(&value)) {
    types.assign(unsigned_list->begin(), unsigned_list->end());
  } else {
    return KeyError(key, "not an array of integers");
  }
  if (types.size() != count) {
    return KeyError(key, absl::StrFormat("%d entries for %d tokens", types.size(), count));
  }
  return types;
}

absl::Status ReadVocabulary(const Metadata& metadata, TokenizerDefinition* definition) {
  const std::string key = "tokenizer.ggml.tokens";
  ESSOR_ASSIGN_OR_RETURN(const std::vector<std::string>* tokens,
                         Get<std::vector<std::string>>(metadata, key));
  if (tokens->empty()) return KeyError(key, "empty");
  ESSOR_ASSIGN_OR_RETURN(const std::vector<int64_t> types, GetTokenTypes(metadata, tokens->size()));
  absl::flat_hash_map<std::string, TokenId> seen;
  for (size_t i = 0; i < tokens->size(); ++i) {
    const std::string& text = (*tokens)[i];
    const auto id = static_cast<TokenId>(i);
    if (!IsValidUtf8(text)) return KeyError(key, absl::StrFormat("token %d is not UTF-8", i));
    const auto [first, is_new] = seen.try_emplace(text, id);
    if (!is_new) {
      return KeyError(key,
                      absl::StrFormat("tokens %d and %d are both \"%s\"", first->second, i, text));
    }
    if (types[i] == kControlToken || types[i] == kUserDefinedToken) {
      definition->added_tokens.push_back(
          {.content = text, .id = id, .special = types[i] == kControlToken});
    }
    definition->model.vocab.emplace_back(text, id);
  }
  return absl::OkStatus();
}

absl::Status ReadMerges(const Metadata& metadata, BpeDefinition* model) {
  const std::string key = "tokenizer.ggml.merges";
  ESSOR_ASSIGN_OR_RETURN(const std::vector<std::string>* merges,
                         Get<std::vector<std::string>>(metadata, key));
  for (size_t i = 0; i < merges->size(); ++i) {
    const std::string& merge = (*merges)[i];
    const size_t blank = merge.find(' ');
    if (blank == std::string::npos || merge.find(' ', blank + 1) != std::string::npos) {
      return KeyError(key, absl::StrFormat("entry %d, \"%s\", is not two tokens", i, merge));
    }
    model->merges.emplace_back(merge.substr(0, blank), merge.substr(blank + 1));
  }
  return absl::OkStatus();
}

SplitStep Isolate(std::string_view pattern) {
  return {.pattern = std::string(pattern), .is_regex = true};
}

// The steps that a value of tokenizer.ggml.pre stands for (llama.cpp, src/llama-vocab.cpp); empty
// for an unknown one.
std::vector<PreTokenizerStep> PreTokenizerSteps(const std::string& pre) {
  const ByteLevelStep gpt2{.add_prefix_space = false, .use_regex = true};
  const ByteLevelStep bytes{.add_prefix_space = false, .use_regex = false};
  const auto single = [&](ScannerKind kind) -> std::vector<PreTokenizerStep> {
    return {Isolate(ScannerPattern(kind)), bytes};
  };
  if (pre == "gpt-2" || pre == "olmo" || pre == "mpt" || pre == "phi-2") return {gpt2};
  if (pre == "smollm" || pre == "starcoder" || pre == "refact" || pre == "command-r" ||
      pre == "codeshell" || pre == "exaone") {
    return {DigitsStep{.individual = true}, gpt2};
  }
  if (pre == "llama-bpe" || pre == "llama3" || pre == "llama-v3" || pre == "glm4" ||
      pre == "chatglm-bpe" || pre == "dbrx" || pre == "smaug-bpe") {
    return single(ScannerKind::kLlama3);
  }
  if (pre == "qwen2" || pre == "deepseek-r1-qwen" || pre == "stablelm2") {
    return single(ScannerKind::kQwen2);
  }
  if (pre == "qwen35") return single(ScannerKind::kQwen35);
  if (pre == "gpt-4o" || pre == "llama4" || pre == "minimax-m2") {
    return single(ScannerKind::kO200k);
  }
  if (pre == kKimiPre) return single(ScannerKind::kKimi);
  if (pre == "deepseek-v3" || pre == "hunyuan-dense") {
    return {Isolate(kDeepSeekDigits), Isolate(kDeepSeekCjk),
            Isolate(ScannerPattern(ScannerKind::kDeepSeekV3)), bytes};
  }
  if (pre == "default") {
    return {Isolate("[\\p{P}\\$\\+<=>\\^~\\|]+"), Isolate(ScannerPattern(ScannerKind::kGpt2)),
            Isolate("\\p{N}+"), Isolate("[0-9][0-9][0-9]"), bytes};
  }
  return {};
}

// BOS and EOS around a text, where the file asks for them.
absl::Status ReadPostProcessor(const Metadata& metadata, bool bos_by_default,
                               TokenizerDefinition* definition) {
  ESSOR_ASSIGN_OR_RETURN(const auto bos, GetOptionalId(metadata, "tokenizer.ggml.bos_token_id"));
  ESSOR_ASSIGN_OR_RETURN(const auto eos, GetOptionalId(metadata, "tokenizer.ggml.eos_token_id"));
  ESSOR_ASSIGN_OR_RETURN(const bool add_bos,
                         GetBool(metadata, "tokenizer.ggml.add_bos_token", bos_by_default));
  ESSOR_ASSIGN_OR_RETURN(const bool add_eos,
                         GetBool(metadata, "tokenizer.ggml.add_eos_token", false));
  const size_t vocab_size = definition->model.vocab.size();
  const auto check = [&](const char* key, const std::optional<uint64_t>& id) {
    if (!id.has_value()) return KeyError(key, "missing, but it is to be added to every text");
    if (*id < vocab_size) return absl::OkStatus();
    return KeyError(key, absl::StrFormat("%d is outside the vocabulary of %d", *id, vocab_size));
  };
  if (add_bos && (bos.has_value() || metadata.contains("tokenizer.ggml.add_bos_token"))) {
    ESSOR_RETURN_IF_ERROR(check("tokenizer.ggml.bos_token_id", bos));
    definition->prefix.push_back(static_cast<TokenId>(*bos));
  }
  if (add_eos) {
    ESSOR_RETURN_IF_ERROR(check("tokenizer.ggml.eos_token_id", eos));
    definition->suffix.push_back(static_cast<TokenId>(*eos));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerDefinition> ParseGgufTokenizer(const Metadata& metadata) {
  ESSOR_ASSIGN_OR_RETURN(const std::string* model,
                         Get<std::string>(metadata, "tokenizer.ggml.model"));
  if (*model != "gpt2") {
    return KeyError(
        "tokenizer.ggml.model",
        absl::StrFormat("\"%s\" is not supported; \"gpt2\" (byte-level BPE) is", *model));
  }
  std::string pre = "default";
  if (metadata.contains("tokenizer.ggml.pre")) {
    ESSOR_ASSIGN_OR_RETURN(const std::string* value,
                           Get<std::string>(metadata, "tokenizer.ggml.pre"));
    pre = *value;
  }
  TokenizerDefinition definition;
  definition.pre_tokenizers = PreTokenizerSteps(pre);
  if (definition.pre_tokenizers.empty()) {
    return KeyError("tokenizer.ggml.pre", absl::StrFormat("\"%s\" is not supported", pre));
  }
  if (pre == "qwen2" || pre == "qwen35") definition.normalizers.emplace_back(UnicodeForm::kNfc);
  // What the tokenizer.json of Llama 3 and GLM-4 says and GGUF leaves to its readers.
  const bool llama3 = pre == "llama-bpe" || pre == "llama3" || pre == "llama-v3";
  definition.model.ignore_merges = llama3 || pre == "glm4";
  if (pre == kKimiPre) {
    // What tiktoken and the model's own class over it do (tokenizer_tiktoken.h). The file's merges
    // say of each token which two others it comes from, in the order of their ranks.
    definition.model.ignore_merges = true;
    definition.chunks = kKimiChunks;
  }
  ESSOR_RETURN_IF_ERROR(ReadVocabulary(metadata, &definition));
  ESSOR_RETURN_IF_ERROR(ReadMerges(metadata, &definition.model));
  ESSOR_RETURN_IF_ERROR(ReadPostProcessor(metadata, llama3, &definition));
  return definition;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromGguf(const GgufFile& file) {
  ESSOR_ASSIGN_OR_RETURN(TokenizerDefinition definition, ParseGgufTokenizer(file.metadata()));
  return PipelineTokenizer::Create(std::move(definition));
}

}  // namespace essor::model
