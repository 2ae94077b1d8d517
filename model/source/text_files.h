// Tokenizer and chat template of a Hugging Face directory or a GGUF file.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "model/chat/chat_template.h"
#include "model/checkpoint/gguf.h"
#include "model/tokenizer/tokenizer.h"

namespace essor::model {

// The whole file. NotFound naming the path when it is missing, InvalidArgument above `max_bytes`.
absl::StatusOr<std::string> ReadTextFile(const std::string& path, uint64_t max_bytes);

// Files like config.json; models of today have at most some 100 kB.
inline constexpr uint64_t kMaxConfigBytes = 16 << 20;
inline constexpr uint64_t kMaxTokenizerBytes = 256 << 20;

// tokenizer.json, else tiktoken.model, else tokenizer.model (SentencePiece); the latter two with
// tokenizer_config.json. Null when the directory has none of them.
absl::StatusOr<std::unique_ptr<Tokenizer>> OpenTokenizer(const std::string& directory);

// chat_template.jinja, else chat_template of tokenizer_config.json (a string, or a list of named
// templates of which "default" counts), else the encoder that config.json's model_type is known to
// need (deepseek_v32). Null when the directory has none of them. Special tokens come from
// tokenizer_config.json, else special_tokens_map.json.
absl::StatusOr<std::unique_ptr<ChatTemplate>> OpenChatTemplate(const std::string& directory);

// Null when the file has none (tokenizer.ggml.model, tokenizer.chat_template).
absl::StatusOr<std::unique_ptr<Tokenizer>> OpenTokenizer(const GgufFile& file);
absl::StatusOr<std::unique_ptr<ChatTemplate>> OpenChatTemplate(const GgufFile& file);

}  // namespace essor::model
