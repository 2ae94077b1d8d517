#include "model/tokenizer/bpe_tokenizer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "model/tokenizer/byte_level.h"
#include "model/tokenizer/guards.h"
#include "model/tokenizer/tokenizer_json.h"
#include "model/tokenizer/utf8.h"

namespace essor::model {

absl::StatusOr<std::unique_ptr<Tokenizer>> BpeTokenizer::Create(TokenizerDefinition definition) {
  auto result = std::unique_ptr<BpeTokenizer>(new BpeTokenizer());
  ESSOR_RETURN_IF_ERROR(result->BuildVocabulary(definition));
  ESSOR_ASSIGN_OR_RETURN(result->model_, BpeModel::Create(definition.model));
  ESSOR_ASSIGN_OR_RETURN(result->normalizer_,
                         Normalizer::Create(std::move(definition.normalizers)));
  ESSOR_ASSIGN_OR_RETURN(result->pre_tokenizer_,
                         PreTokenizer::Create(std::move(definition.pre_tokenizers)));
  ESSOR_RETURN_IF_ERROR(result->BuildMatchers(definition.added_tokens));
  for (const auto* ids : {&definition.prefix, &definition.suffix}) {
    for (const TokenId id : *ids) {
      if (id < result->vocab_size()) continue;
      return absl::InvalidArgumentError(absl::StrFormat(
          "post_processor adds token %d, but the vocabulary ends at %d", id, result->vocab_size()));
    }
  }
  result->prefix_ = std::move(definition.prefix);
  result->suffix_ = std::move(definition.suffix);
  return std::unique_ptr<Tokenizer>(std::move(result));
}

void BpeTokenizer::SetToken(TokenId id, std::string_view bytes, bool special) {
  if (id >= tokens_.size()) tokens_.resize(id + 1);
  tokens_[id] = {.offset = static_cast<uint32_t>(bytes_.size()),
                 .size = static_cast<uint32_t>(bytes.size()),
                 .special = special};
  bytes_.append(bytes);
}

absl::Status BpeTokenizer::BuildVocabulary(const TokenizerDefinition& definition) {
  // A token spelled in the byte-level alphabet stands for those bytes, any other for its own text.
  std::string bytes;
  const auto bytes_of = [&bytes](const std::string& text) -> const std::string& {
    bytes.clear();
    if (!ByteLevelDecode(text, &bytes)) bytes = text;
    return bytes;
  };
  for (const auto& [text, id] : definition.model.vocab) {
    SetToken(id, bytes_of(text), /*special=*/false);
    ids_[text] = id;
  }
  absl::flat_hash_map<TokenId, std::string> added;
  for (const AddedToken& token : definition.added_tokens) {
    const auto in_vocab = ids_.find(token.content);
    if (in_vocab != ids_.end() && in_vocab->second != token.id) {
      return absl::InvalidArgumentError(
          absl::StrFormat("added token \"%s\" has id %d, but \"%s\" is already token %d",
                          token.content, token.id, token.content, in_vocab->second));
    }
    const auto [owner, is_new] = added.try_emplace(token.id, token.content);
    if (!is_new && owner->second != token.content) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "added tokens \"%s\" and \"%s\" share id %d", owner->second, token.content, token.id));
    }
    // A special token is its text even where that could be read in the byte-level alphabet.
    SetToken(token.id, token.special ? token.content : bytes_of(token.content), token.special);
    ids_[token.content] = token.id;
    if (token.special && is_new) special_tokens_.push_back(token.id);
  }
  return absl::OkStatus();
}

absl::Status BpeTokenizer::BuildMatchers(const std::vector<AddedToken>& tokens) {
  std::vector<AddedToken> raw;
  std::vector<AddedToken> normalized;
  for (const AddedToken& token : tokens) {
    if (!IsValidUtf8(token.content)) {
      return absl::InvalidArgumentError(
          absl::StrFormat("added token %d is not valid UTF-8", token.id));
    }
    if (!token.normalized) {
      raw.push_back(token);
      continue;
    }
    AddedToken copy = token;
    std::string buffer;
    ESSOR_ASSIGN_OR_RETURN(const std::string_view content,
                           normalizer_->Apply(token.content, kTextBytesMax, &buffer));
    copy.content = std::string(content);
    normalized.push_back(std::move(copy));
  }
  raw_matcher_ = std::make_unique<AddedTokenMatcher>(std::move(raw));
  normalized_matcher_ = std::make_unique<AddedTokenMatcher>(std::move(normalized));
  return absl::OkStatus();
}

std::unique_ptr<BpeTokenizer::Scratch> BpeTokenizer::TakeScratch() const {
  {
    absl::MutexLock lock(&scratches_mutex_);
    if (!scratches_.empty()) {
      std::unique_ptr<Scratch> scratch = std::move(scratches_.back());
      scratches_.pop_back();
      return scratch;
    }
  }
  return std::make_unique<Scratch>();
}

void BpeTokenizer::ReturnScratch(std::unique_ptr<Scratch> scratch) const {
  // A very long text must not pin its buffers.
  constexpr size_t kKeptBytes = size_t{1} << 20;
  if (scratch->normalized.capacity() > kKeptBytes) scratch->normalized = std::string();
  if (scratch->pre_tokenized.pieces.capacity() * sizeof(Piece) > kKeptBytes ||
      scratch->pre_tokenized.rewritten.capacity() > kKeptBytes) {
    scratch->pre_tokenized = {};
  }
  scratch->pre_tokenized.text = {};
  absl::MutexLock lock(&scratches_mutex_);
  if (scratches_.size() < kScratchesKept) scratches_.push_back(std::move(scratch));
}

absl::StatusOr<std::vector<TokenId>> BpeTokenizer::Encode(std::string_view text,
                                                          const EncodeOptions& options) const {
  if (text.size() > kTextBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrFormat("text of %d bytes; the limit is %d", text.size(), kTextBytesMax));
  }
  if (!IsValidUtf8(text)) return absl::InvalidArgumentError("text is not valid UTF-8");
  std::vector<TokenId> ids;
  ids.reserve(text.size() / 4 + prefix_.size() + suffix_.size() + 1);
  if (options.add_special) ids.insert(ids.end(), prefix_.begin(), prefix_.end());
  std::unique_ptr<Scratch> scratch = TakeScratch();
  Unguarded unguarded;
  if (options.guarded) {
    unguarded = RemoveGuards(text);
    text = unguarded.text;
  }
  const absl::Status status =
      EncodeSegments(text, options.parse_special, unguarded.guards, scratch.get(), &ids);
  ReturnScratch(std::move(scratch));
  ESSOR_RETURN_IF_ERROR(status);
  if (options.add_special) ids.insert(ids.end(), suffix_.begin(), suffix_.end());
  return ids;
}

absl::Status BpeTokenizer::EncodeSegments(std::string_view text, bool parse_special,
                                          std::span<const uint32_t> guards, Scratch* scratch,
                                          std::vector<TokenId>* ids) const {
  scratch->raw_segments.clear();
  raw_matcher_->Split(text, parse_special, guards, &scratch->raw_segments);
  std::vector<uint32_t> segment_guards;
  for (const AddedTokenMatcher::Segment& segment : scratch->raw_segments) {
    if (segment.token != AddedTokenMatcher::kText) {
      ids->push_back(segment.token);
      continue;
    }
    segment_guards.clear();
    for (auto guard = std::lower_bound(guards.begin(), guards.end(), segment.piece.begin);
         guard != guards.end() && *guard < segment.piece.end; ++guard) {
      segment_guards.push_back(*guard - segment.piece.begin);
    }
    const std::string_view raw = segment.piece.In(text);
    ESSOR_ASSIGN_OR_RETURN(const std::string_view normalized,
                           normalizer_->Apply(raw, kTextBytesMax, &scratch->normalized));
    // Where normalisation has moved the text, the places of guards are lost: then no special token
    // is recognised in it. Only special tokens of the normalised text (rare) could be missed.
    const bool moved = normalized.data() != raw.data() && !segment_guards.empty();
    scratch->normalized_segments.clear();
    normalized_matcher_->Split(normalized, parse_special && !moved, segment_guards,
                               &scratch->normalized_segments);
    for (const AddedTokenMatcher::Segment& part : scratch->normalized_segments) {
      if (part.token != AddedTokenMatcher::kText) {
        ids->push_back(part.token);
      } else {
        ESSOR_RETURN_IF_ERROR(EncodeText(part.piece.In(normalized), scratch, ids));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status BpeTokenizer::EncodeText(std::string_view text, Scratch* scratch,
                                      std::vector<TokenId>* ids) const {
  if (const Scanner* scanner = pre_tokenizer_->scanner()) {
    const char* text_end = text.data() + text.size();
    std::array<Piece, 256> batch;
    size_t position = 0;
    while (const size_t count = scanner->Scan(text, position, batch)) {
      for (size_t i = 0; i < count; ++i) {
        model_->Encode(batch[i].In(text), text_end, &scratch->bpe, ids);
      }
      position = batch[count - 1].end;
    }
    return absl::OkStatus();
  }
  PreTokenized& pre_tokenized = scratch->pre_tokenized;
  ESSOR_RETURN_IF_ERROR(pre_tokenizer_->Run(text, &pre_tokenized));
  const char* text_end = pre_tokenized.text.data() + pre_tokenized.text.size();
  for (const Piece& piece : pre_tokenized.pieces) {
    model_->Encode(piece.In(pre_tokenized.text), text_end, &scratch->bpe, ids);
  }
  return absl::OkStatus();
}

std::string_view BpeTokenizer::TokenBytes(TokenId id) const {
  if (id >= tokens_.size()) return {};
  return std::string_view(bytes_).substr(tokens_[id].offset, tokens_[id].size);
}

bool BpeTokenizer::IsSpecial(TokenId id) const {
  return id < tokens_.size() && tokens_[id].special;
}

absl::StatusOr<TokenId> BpeTokenizer::IdOf(std::string_view token) const {
  const auto it = ids_.find(std::string(token));
  if (it == ids_.end()) {
    return absl::NotFoundError(absl::StrFormat("no token is \"%s\"", token));
  }
  return it->second;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromTokenizerJson(std::string_view json) {
  ESSOR_ASSIGN_OR_RETURN(TokenizerDefinition definition, ParseTokenizerJson(json));
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      BpeTokenizer::Create(std::move(definition));
  if (!tokenizer.ok()) {
    return absl::Status(
        tokenizer.status().code(),
        absl::StrFormat("tokenizer.json: %s", std::string(tokenizer.status().message())));
  }
  return tokenizer;
}

}  // namespace essor::model
