#include "model/tokenizer/pipeline_tokenizer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "model/tokenizer/byte_fallback.h"
#include "model/tokenizer/byte_level.h"
#include "model/tokenizer/guards.h"
#include "model/tokenizer/text_chunks.h"
#include "model/tokenizer/tokenizer_json.h"
#include "model/tokenizer/utf8.h"

namespace essor::model {
namespace {

// Those of `guards` in `piece`, counted from its beginning.
void GuardsIn(const Piece& piece, std::span<const uint32_t> guards, std::vector<uint32_t>* result) {
  result->clear();
  for (auto guard = std::lower_bound(guards.begin(), guards.end(), piece.begin);
       guard != guards.end() && *guard < piece.end; ++guard) {
    result->push_back(*guard - piece.begin);
  }
}

absl::Status CheckAddedSize(TokenId id, std::string_view content) {
  if (content.size() <= AddedTokenMatcher::kContentBytesMax) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat("added token %d has %d bytes; the limit is %d",
                                                    id, content.size(),
                                                    AddedTokenMatcher::kContentBytesMax));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> PipelineTokenizer::Create(
    TokenizerDefinition definition) {
  auto result = std::unique_ptr<PipelineTokenizer>(new PipelineTokenizer());
  ESSOR_RETURN_IF_ERROR(result->BuildVocabulary(definition));
  if (definition.unigram.has_value()) {
    ESSOR_ASSIGN_OR_RETURN(result->unigram_,
                           UnigramModel::Create(definition.model, *definition.unigram));
  } else {
    ESSOR_ASSIGN_OR_RETURN(result->model_, BpeModel::Create(definition.model));
  }
  if (!definition.model.byte_level) result->text_start_ = definition.decoder.start;
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
  result->chunks_ = definition.chunks;
  result->prefix_ = std::move(definition.prefix);
  result->suffix_ = std::move(definition.suffix);
  return std::unique_ptr<Tokenizer>(std::move(result));
}

void PipelineTokenizer::SetToken(TokenId id, std::string_view bytes, bool special) {
  if (id >= tokens_.size()) tokens_.resize(id + 1);
  tokens_[id] = {.offset = static_cast<uint32_t>(bytes_.size()),
                 .size = static_cast<uint32_t>(bytes.size()),
                 .special = special};
  bytes_.append(bytes);
}

absl::Status PipelineTokenizer::SetPlainToken(const DecoderDefinition& decoder, TokenId id,
                                              std::string text, bool special) {
  for (const auto& [from, to] : decoder.replacements) {
    std::string replaced;
    size_t copied = 0;
    for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, copied)) {
      replaced.append(text, copied, at - copied).append(to);
      copied = at + from.size();
      if (replaced.size() > kTokenBytesMax) break;
    }
    replaced.append(text, copied);
    if (replaced.size() > kTokenBytesMax && replaced.size() > text.size()) {
      return absl::InvalidArgumentError(
          absl::StrFormat("token %d decodes to more than %d bytes", id, kTokenBytesMax));
    }
    text = std::move(replaced);
  }
  const std::optional<uint8_t> byte = ByteOfFallbackToken(text);
  const bool is_byte = decoder.byte_fallback && byte.has_value();
  SetToken(id, is_byte ? std::string(1, static_cast<char>(*byte)) : text, special);
  tokens_[id].byte_fallback = is_byte;
  if (bytes_.size() <= kVocabularyBytesMax) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("the tokens decode to more than %d bytes", kVocabularyBytesMax));
}

absl::Status PipelineTokenizer::BuildVocabulary(const TokenizerDefinition& definition) {
  // A token spelled in the byte-level alphabet stands for those bytes, any other for its own text.
  std::string bytes;
  const auto bytes_of = [&bytes](const std::string& text) -> const std::string& {
    bytes.clear();
    if (!ByteLevelDecode(text, &bytes)) bytes = text;
    return bytes;
  };
  const auto set = [&](TokenId id, const std::string& text, bool special) {
    if (!definition.model.byte_level) return SetPlainToken(definition.decoder, id, text, special);
    // A special token is its text even where that could be read in the byte-level alphabet.
    SetToken(id, special ? text : bytes_of(text), special);
    return absl::OkStatus();
  };
  for (const auto& [text, id] : definition.model.vocab) {
    ESSOR_RETURN_IF_ERROR(set(id, text, /*special=*/false));
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
    ESSOR_RETURN_IF_ERROR(set(token.id, token.content, token.special));
    ids_[token.content] = token.id;
    if (token.special && is_new) special_tokens_.push_back(token.id);
  }
  return absl::OkStatus();
}

absl::Status PipelineTokenizer::BuildMatchers(const std::vector<AddedToken>& tokens) {
  std::vector<AddedToken> raw;
  std::vector<AddedToken> normalized;
  for (const AddedToken& token : tokens) {
    ESSOR_RETURN_IF_ERROR(CheckAddedSize(token.id, token.content));
    if (!IsValidUtf8(token.content)) {
      return absl::InvalidArgumentError(
          absl::StrFormat("added token %d is not valid UTF-8", token.id));
    }
    if (!token.normalized || token.verbatim) {
      (token.normalized ? normalized : raw).push_back(token);
      continue;
    }
    AddedToken copy = token;
    std::string buffer;
    ESSOR_ASSIGN_OR_RETURN(
        const std::string_view content,
        normalizer_->Apply(token.content, /*at_start=*/true, kTextBytesMax, &buffer));
    ESSOR_RETURN_IF_ERROR(CheckAddedSize(token.id, content));
    copy.content = std::string(content);
    normalized.push_back(std::move(copy));
  }
  raw_matcher_ = std::make_unique<AddedTokenMatcher>(std::move(raw));
  normalized_matcher_ = std::make_unique<AddedTokenMatcher>(std::move(normalized));
  return absl::OkStatus();
}

std::unique_ptr<PipelineTokenizer::Scratch> PipelineTokenizer::TakeScratch() const {
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

void PipelineTokenizer::ReturnScratch(std::unique_ptr<Scratch> scratch) const {
  // A very long text must not pin its buffers.
  constexpr size_t kKeptBytes = size_t{1} << 20;
  if (scratch->normalized.capacity() > kKeptBytes) scratch->normalized = std::string();
  if (scratch->pre_tokenized.pieces.capacity() * sizeof(Piece) > kKeptBytes ||
      scratch->pre_tokenized.rewritten.capacity() > kKeptBytes) {
    scratch->pre_tokenized = {};
  }
  scratch->pre_tokenized.text = {};
  if (scratch->words.capacity() * sizeof(Piece) > kKeptBytes) scratch->words = {};
  scratch->bpe.Shrink(kKeptBytes);
  for (auto* segments : {&scratch->raw_segments, &scratch->normalized_segments}) {
    if (segments->capacity() * sizeof(segments->front()) > kKeptBytes) *segments = {};
  }
  absl::MutexLock lock(&scratches_mutex_);
  if (scratches_.size() < kScratchesKept) scratches_.push_back(std::move(scratch));
}

absl::StatusOr<std::vector<TokenId>> PipelineTokenizer::Encode(std::string_view text,
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
      EncodeChunks(text, options.parse_special, unguarded.guards, scratch.get(), &ids);
  ReturnScratch(std::move(scratch));
  ESSOR_RETURN_IF_ERROR(status);
  if (options.add_special) ids.insert(ids.end(), suffix_.begin(), suffix_.end());
  return ids;
}

absl::Status PipelineTokenizer::EncodeChunks(std::string_view text, bool parse_special,
                                             std::span<const uint32_t> guards, Scratch* scratch,
                                             std::vector<TokenId>* ids) const {
  if (!chunks_.has_value()) return EncodeSegments(text, parse_special, guards, scratch, ids);
  std::vector<uint32_t> chunk_guards;
  uint32_t begin = 0;
  for (const uint32_t end : ChunkEnds(text, *chunks_)) {
    const Piece chunk{begin, end};
    GuardsIn(chunk, guards, &chunk_guards);
    ESSOR_RETURN_IF_ERROR(
        EncodeSegments(chunk.In(text), parse_special, chunk_guards, scratch, ids));
    begin = end;
  }
  return absl::OkStatus();
}

absl::Status PipelineTokenizer::EncodeSegments(std::string_view text, bool parse_special,
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
    GuardsIn(segment.piece, guards, &segment_guards);
    const std::string_view raw = segment.piece.In(text);
    ESSOR_ASSIGN_OR_RETURN(
        const std::string_view normalized,
        normalizer_->Apply(raw, segment.piece.begin == 0, kTextBytesMax, &scratch->normalized));
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
        const bool at_start = segment.piece.begin == 0 && part.piece.begin == 0;
        ESSOR_RETURN_IF_ERROR(EncodeText(part.piece.In(normalized), at_start, scratch, ids));
      }
    }
  }
  return absl::OkStatus();
}

void PipelineTokenizer::SplitWords(std::string_view text, const Piece& piece,
                                   std::vector<Piece>* words) {
  constexpr std::string_view kBlank = "\u2581";
  text = text.substr(0, piece.end);
  size_t begin = piece.begin;
  for (size_t at = text.find(kBlank, begin); at != std::string_view::npos;
       at = text.find(kBlank, at + kBlank.size())) {
    if (at == begin || text.substr(piece.begin, at - piece.begin).ends_with(kBlank)) continue;
    words->push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(at)});
    begin = at;
  }
  words->push_back({static_cast<uint32_t>(begin), piece.end});
}

absl::Status PipelineTokenizer::EncodePieces(Scratch* scratch, std::vector<TokenId>* ids) const {
  const std::string_view text = scratch->pre_tokenized.text;
  const std::vector<Piece>& pieces = scratch->pre_tokenized.pieces;
  if (unigram_ != nullptr) {
    for (const Piece& piece : pieces) ESSOR_RETURN_IF_ERROR(unigram_->Encode(piece.In(text), ids));
    return absl::OkStatus();
  }
  if (!model_->separates_words()) {
    model_->Encode(text, pieces, &scratch->bpe, ids);
    return absl::OkStatus();
  }
  // Words are cached, and short ones are merged fastest.
  for (const Piece& piece : pieces) {
    scratch->words.clear();
    SplitWords(text, piece, &scratch->words);
    model_->Encode(text, scratch->words, &scratch->bpe, ids);
  }
  return absl::OkStatus();
}

absl::Status PipelineTokenizer::EncodeText(std::string_view text, bool at_start, Scratch* scratch,
                                           std::vector<TokenId>* ids) const {
  const Scanner* const scanner = pre_tokenizer_->scanner();
  if (scanner != nullptr && model_ != nullptr) {
    std::array<Piece, 256> batch;
    size_t position = 0;
    while (const size_t count = scanner->Scan(text, position, batch)) {
      model_->Encode(text, std::span(batch).first(count), &scratch->bpe, ids);
      position = batch[count - 1].end;
    }
    return absl::OkStatus();
  }
  ESSOR_RETURN_IF_ERROR(pre_tokenizer_->Run(text, at_start, &scratch->pre_tokenized));
  return EncodePieces(scratch, ids);
}

std::string_view PipelineTokenizer::TokenBytes(TokenId id) const {
  if (id >= tokens_.size()) return {};
  return std::string_view(bytes_).substr(tokens_[id].offset, tokens_[id].size);
}

bool PipelineTokenizer::IsSpecial(TokenId id) const {
  return id < tokens_.size() && tokens_[id].special;
}

bool PipelineTokenizer::IsByteFallback(TokenId id) const {
  return id < tokens_.size() && tokens_[id].byte_fallback;
}

absl::StatusOr<TokenId> PipelineTokenizer::IdOf(std::string_view token) const {
  const auto it = ids_.find(std::string(token));
  if (it == ids_.end()) {
    return absl::NotFoundError(absl::StrFormat("no token is \"%s\"", token));
  }
  return it->second;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromTokenizerJson(std::string_view json) {
  ESSOR_ASSIGN_OR_RETURN(TokenizerDefinition definition, ParseTokenizerJson(json));
  auto tokenizer = PipelineTokenizer::Create(std::move(definition));
  if (!tokenizer.ok()) return InFile(tokenizer.status(), "tokenizer.json");
  return tokenizer;
}

}  // namespace essor::model
