#include "model/tokenizer/tokenizer_tiktoken.h"

#include <charconv>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "model/tokenizer/byte_level.h"
#include "model/tokenizer/json_fields.h"
#include "model/tokenizer/pipeline_tokenizer.h"
#include "model/tokenizer/scanner.h"
#include "model/tokenizer/utf8.h"

namespace essor::model {
namespace {

// The longest token of Kimi K2 has 128 bytes.
constexpr size_t kTokenBytesMax = 512;
constexpr size_t kReservedTokens = 256;

struct RankedToken {
  std::string bytes;
  uint64_t rank = 0;
};

absl::Status LineError(size_t line, std::string_view problem) {
  return absl::InvalidArgumentError(absl::StrFormat("line %d: %s", line, problem));
}

absl::StatusOr<RankedToken> ParseLine(std::string_view text, size_t line) {
  RankedToken token;
  const size_t blank = text.find(' ');
  if (blank == std::string_view::npos) return LineError(line, "not a token and its rank");
  if (!absl::Base64Unescape(std::string(text.substr(0, blank)), &token.bytes) ||
      token.bytes.empty()) {
    return LineError(line, "the token is not base64");
  }
  if (token.bytes.size() > kTokenBytesMax) {
    return LineError(line, absl::StrFormat("a token of %d bytes; the limit is %d",
                                           token.bytes.size(), kTokenBytesMax));
  }
  const std::string_view rank = text.substr(blank + 1);
  const auto [end, error] = std::from_chars(rank.data(), rank.data() + rank.size(), token.rank);
  if (error != std::errc() || end != rank.data() + rank.size() || token.rank > kTokenIdMax) {
    return LineError(line, "the rank is not a token id");
  }
  return token;
}

std::string ByteLevelText(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) AppendUtf8(ByteLevelCharacter(static_cast<uint8_t>(byte)), &text);
  return text;
}

absl::Status ReadRanks(std::string_view file, BpeDefinition* model) {
  absl::flat_hash_map<std::string, size_t> lines_of_tokens;
  absl::flat_hash_map<uint64_t, size_t> lines_of_ranks;
  uint64_t bytes_seen = 0;
  for (size_t line = 1; !file.empty(); ++line) {
    const size_t end = file.find('\n');
    std::string_view text = file.substr(0, end);
    file.remove_prefix(end == std::string_view::npos ? file.size() : end + 1);
    if (text.ends_with('\r')) text.remove_suffix(1);
    if (text.empty()) continue;
    ESSOR_ASSIGN_OR_RETURN(const RankedToken token, ParseLine(text, line));
    const auto [first, is_new] = lines_of_tokens.try_emplace(token.bytes, line);
    if (!is_new) return LineError(line, absl::StrFormat("the token of line %d", first->second));
    const auto [owner, is_new_rank] = lines_of_ranks.try_emplace(token.rank, line);
    if (!is_new_rank) return LineError(line, absl::StrFormat("the rank of line %d", owner->second));
    bytes_seen += token.bytes.size() == 1;
    model->vocab.emplace_back(ByteLevelText(token.bytes), static_cast<TokenId>(token.rank));
    model->ranks.push_back(static_cast<uint32_t>(token.rank));
  }
  for (size_t rank = 0; rank < model->vocab.size(); ++rank) {
    if (!lines_of_ranks.contains(rank)) {
      return absl::InvalidArgumentError(
          absl::StrFormat("%d tokens, but none of rank %d", model->vocab.size(), rank));
    }
  }
  if (bytes_seen != 256) {
    return absl::InvalidArgumentError(
        absl::StrFormat("tokens for %d of the 256 single bytes", bytes_seen));
  }
  return absl::OkStatus();
}

absl::Status AddSpecialTokens(const TokenizerConfig& config, TokenizerDefinition* definition) {
  const size_t base = definition->model.vocab.size();
  std::vector<bool> named(kReservedTokens);
  for (const AddedToken& token : config.added_tokens) {
    if (token.id < base) {
      return absl::InvalidArgumentError(
          absl::StrFormat("tokenizer_config.json names token %d \"%s\", which has a rank", token.id,
                          token.content));
    }
    if (token.id - base < named.size()) named[token.id - base] = true;
    // tiktoken searches the text as it is, for all of them and nothing around them.
    definition->added_tokens.push_back(
        {.content = token.content, .id = token.id, .special = token.special});
  }
  for (size_t i = 0; i < named.size(); ++i) {
    if (named[i]) continue;
    definition->added_tokens.push_back(
        {.content = absl::StrFormat("<|reserved_token_%d|>", base + i),
         .id = static_cast<TokenId>(base + i),
         .special = true});
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerDefinition> ParseTiktoken(std::string_view ranks,
                                                  const TokenizerConfig& config) {
  if (ranks.size() > kTiktokenBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%d bytes; the limit is %d", ranks.size(), kTiktokenBytesMax));
  }
  TokenizerDefinition definition;
  definition.model.ignore_merges = true;
  definition.chunks = kKimiChunks;
  ESSOR_RETURN_IF_ERROR(ReadRanks(ranks, &definition.model));
  ESSOR_RETURN_IF_ERROR(AddSpecialTokens(config, &definition));
  definition.pre_tokenizers = {
      SplitStep{.pattern = std::string(ScannerPattern(ScannerKind::kKimi)), .is_regex = true},
      ByteLevelStep{.add_prefix_space = false, .use_regex = false}};
  ESSOR_RETURN_IF_ERROR(AddBosAndEos(config, std::nullopt, std::nullopt, &definition));
  return definition;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromTiktoken(std::string_view ranks,
                                                                   const TokenizerConfig& config) {
  auto definition = ParseTiktoken(ranks, config);
  if (!definition.ok()) return InFile(definition.status(), "tiktoken.model");
  auto tokenizer = PipelineTokenizer::Create(*std::move(definition));
  if (!tokenizer.ok()) return InFile(tokenizer.status(), "tiktoken.model");
  return tokenizer;
}

}  // namespace essor::model
