// tokenizer_config.json, as far as vocabularies need it that do not say everything themselves
// (tiktoken.model, tokenizer.model).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/tokenizer/tokenizer_definition.h"

namespace essor::model {

// The names are those of the file's keys.
struct TokenizerConfig {
  std::string tokenizer_class;
  std::vector<AddedToken> added_tokens;  // added_tokens_decoder, by id
  std::string bos_token;
  std::string eos_token;
  std::optional<bool> add_bos_token;
  std::optional<bool> add_eos_token;
  // Of Llama's class: every text between added tokens begins with a blank, not only the first.
  // Absent: false, as in transformers 5's LlamaTokenizer.
  bool legacy = false;
};

// InvalidArgument naming file and field for anything malformed. An empty `json` stands for no file.
absl::StatusOr<TokenizerConfig> ParseTokenizerConfig(std::string_view json);

// Sets what goes around every text, where add_bos_token and add_eos_token ask for it: the tokens
// that the file names, else `bos` and `eos`. InvalidArgument when there is no such token.
absl::Status AddBosAndEos(const TokenizerConfig& config, std::optional<TokenId> bos,
                          std::optional<TokenId> eos, TokenizerDefinition* definition);

}  // namespace essor::model
