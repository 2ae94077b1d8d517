#include "model/tokenizer/bpe_model.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "common/status_macros.h"
#include "model/tokenizer/byte_fallback.h"
#include "model/tokenizer/byte_level.h"
#include "model/tokenizer/utf8.h"

namespace essor::model {
namespace {

// Up to this length, looking through all pairs for the lowest rank beats a heap.
constexpr size_t kShortWord = 48;
constexpr size_t kCacheBuckets = 32768;
// Pieces of at most this many bytes are not cut into parts.
constexpr size_t kPartBytes = 3;

size_t BucketOf(const WordKey& key) { return key.Hash() >> 32 & (kCacheBuckets - 1); }

// Whether a character of three bytes or more is among the first two: scripts without blanks consist
// of them, and their pieces seldom occur twice. `piece` has two bytes or more.
bool BeginsWide(std::string_view piece) {
  constexpr uint8_t kWide = 0xe0;
  return static_cast<uint8_t>(piece[0]) >= kWide || static_cast<uint8_t>(piece[1]) >= kWide;
}

// Token texts to ids.
using IdMap = absl::flat_hash_map<std::string, TokenId>;

IdMap MakeIdMap(const BpeDefinition& definition) {
  IdMap ids;
  ids.reserve(definition.vocab.size());
  for (const auto& [text, id] : definition.vocab) ids[text] = id;
  return ids;
}

bool IsOneCharacter(std::string_view text) {
  return !text.empty() && DecodeUtf8(text.data()).size == text.size();
}

// U+2581 behind another character.
bool HasInnerBlank(std::string_view text) {
  constexpr std::string_view kBlank = "\u2581";
  for (size_t at = text.find(kBlank, 1); at != std::string_view::npos;
       at = text.find(kBlank, at + 1)) {
    if (!text.substr(0, at).ends_with(kBlank)) return true;
  }
  return false;
}

}  // namespace

struct BpeScratch::Buffers {
  struct CachedPiece {
    WordKey key;                                   // all zero: free (no piece is empty)
    std::array<TokenId, TokenOutput::kGroup> ids;  // kNoToken behind the last one
  };
  // A cache line; the piece stored last comes first.
  struct alignas(64) Bucket {
    std::array<CachedPiece, 2> pieces;

    void Store(const WordKey& key, const std::array<TokenId, TokenOutput::kGroup>& ids) {
      pieces[1] = pieces[0];
      pieces[0] = {key, ids};
    }
  };
  // A pair that may merge: the node it begins at, and what the node and its neighbour were.
  struct Candidate {
    uint32_t rank;
    uint32_t node;
    TokenId left;
    TokenId right;
    TokenId result;
    // For a heap with the lowest rank, then the leftmost, on top.
    bool operator<(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : node > other.node;
    }
  };
  struct Node {
    TokenId token;
    int32_t previous;
    int32_t next;  // -1: none
  };

  std::vector<Bucket> cache = std::vector<Bucket>(kCacheBuckets);
  std::vector<TokenId> tokens;
  std::vector<Candidate> heap;
  std::vector<Node> nodes;
};

BpeScratch::BpeScratch() : buffers_(std::make_unique<Buffers>()) {}
BpeScratch::~BpeScratch() = default;

void BpeScratch::Shrink(size_t bytes) {
  const auto shrink = [bytes](auto& buffer) {
    if (buffer.capacity() * sizeof(buffer[0]) > bytes) buffer = {};
  };
  shrink(buffers_->tokens);
  shrink(buffers_->heap);
  shrink(buffers_->nodes);
}

BpeModel::~BpeModel() = default;

absl::StatusOr<std::unique_ptr<BpeModel>> BpeModel::Create(const BpeDefinition& definition) {
  auto model = std::unique_ptr<BpeModel>(new BpeModel());
  ESSOR_RETURN_IF_ERROR(model->AddSymbols(definition));
  if (definition.ranks.empty()) {
    ESSOR_RETURN_IF_ERROR(model->AddMerges(definition));
  } else {
    model->AddRanks(definition);
  }
  model->AddBoundaries(definition);
  model->AddWords(definition);
  return model;
}

absl::Status BpeModel::AddSymbols(const BpeDefinition& definition) {
  byte_tokens_.fill(kNoToken);
  byte_level_ = definition.byte_level;
  fuse_unk_ = definition.fuse_unk;
  ignore_merges_ = definition.ignore_merges;
  std::string bytes;
  bool inner_blank = false;
  for (const auto& [text, id] : definition.vocab) {
    if (definition.unk_token.has_value() && text == *definition.unk_token) unk_ = id;
    if (byte_level_) {
      bytes.clear();
      if (ByteLevelDecode(text, &bytes) && bytes.size() == 1) {
        byte_tokens_[static_cast<uint8_t>(bytes[0])] = id;
      }
      continue;
    }
    if (IsOneCharacter(text)) character_tokens_[DecodeUtf8(text.data()).value] = id;
    if (definition.byte_fallback) fallback_.Add(text, id);
    inner_blank |= HasInnerBlank(text);
  }
  separates_words_ = !byte_level_ && !inner_blank && !definition.ignore_merges &&
                     character_tokens_.contains(U'\u2581');
  if (definition.unk_token.has_value() && unk_ == kNoToken) {
    return absl::InvalidArgumentError(
        absl::StrFormat("unk_token \"%s\" is not in the vocabulary", *definition.unk_token));
  }
  return absl::OkStatus();
}

absl::Status BpeModel::AddMerges(const BpeDefinition& definition) {
  const IdMap ids = MakeIdMap(definition);
  merges_ = MergeTable(definition.merges.size());
  uint32_t rank = 0;
  for (const auto& [left, right] : definition.merges) {
    const auto find = [&](const std::string& text) {
      const auto it = ids.find(text);
      return it == ids.end() ? kNoToken : it->second;
    };
    const TokenId left_id = find(left);
    const TokenId right_id = find(right);
    const TokenId result = find(left + right);
    if (left_id == kNoToken || right_id == kNoToken || result == kNoToken) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "merge %d (\"%s\" with \"%s\"): \"%s\" is not in the vocabulary", rank, left, right,
          left_id == kNoToken ? left : (right_id == kNoToken ? right : left + right)));
    }
    merges_.Insert(left_id, right_id, {rank, result});
    ++rank;
  }
  return absl::OkStatus();
}

void BpeModel::AddRanks(const BpeDefinition& definition) {
  const IdMap ids = MakeIdMap(definition);
  struct Found {
    TokenId left;
    TokenId right;
    Merge merge;
  };
  std::vector<Found> found;
  for (size_t i = 0; i < definition.vocab.size(); ++i) {
    const auto& [text, id] = definition.vocab[i];
    if (definition.ranks[i] == BpeDefinition::kNoRank || text.empty()) continue;
    const absl::string_view view(text);
    for (size_t cut = DecodeUtf8(text.data()).size; cut < text.size();
         cut += DecodeUtf8(text.data() + cut).size) {
      const auto left = ids.find(view.substr(0, cut));
      if (left == ids.end()) continue;
      const auto right = ids.find(view.substr(cut));
      if (right == ids.end()) continue;
      found.push_back({left->second, right->second, {definition.ranks[i], id}});
    }
  }
  merges_ = MergeTable(found.size());
  for (const Found& merge : found) merges_.Insert(merge.left, merge.right, merge.merge);
}

void BpeModel::AddBoundaries(const BpeDefinition& definition) {
  // Bytes without a token are dropped or fused over any boundary.
  if (!byte_level_ || std::ranges::find(byte_tokens_, kNoToken) != byte_tokens_.end()) return;
  // Tokens that bytes can become; one that is spelled otherwise never comes about.
  absl::flat_hash_map<TokenId, std::string> bytes_of;
  // The last rank that a character needs to become one token.
  absl::flat_hash_map<std::string, uint32_t> rank_of_character;
  BpeScratch scratch;
  for (const auto& [text, id] : definition.vocab) {
    std::string bytes;
    if (!ByteLevelDecode(text, &bytes) || bytes.empty()) continue;
    if (bytes.size() > 1 && bytes.size() <= 4 && IsValidUtf8(bytes) && IsOneCharacter(bytes)) {
      BytesToTokens(bytes, &scratch.buffers_->tokens);
      const uint32_t rank = MergeShort(&scratch);
      if (scratch.buffers_->tokens == std::vector<TokenId>{id}) {
        character_tokens_[DecodeUtf8(bytes.data()).value] = id;
        rank_of_character[bytes] = rank;
      }
    }
    bytes_of.emplace(id, std::move(bytes));
  }
  const auto rank_of = [&](std::string_view character) {
    const auto found =
        rank_of_character.find(absl::string_view(character.data(), character.size()));
    return found == rank_of_character.end() ? 0 : found->second;
  };
  boundaries_.emplace(definition.vocab.size());
  merges_.ForEach([&](TokenId left_id, TokenId right_id, const Merge& merge) {
    const auto left = bytes_of.find(left_id);
    const auto right = bytes_of.find(right_id);
    if (left == bytes_of.end() || right == bytes_of.end()) return;
    boundaries_->Add(left->second, right->second, merge.rank, rank_of);
  });
}

void BpeModel::AddWords(const BpeDefinition& definition) {
  words_.emplace(definition.vocab.size());
  BpeScratch scratch;
  std::string bytes;
  for (const auto& [text, id] : definition.vocab) {
    bytes.clear();
    if (!byte_level_) {
      bytes = text;
    } else if (!ByteLevelDecode(text, &bytes)) {
      continue;
    }
    if (bytes.empty()) continue;
    EncodeByMerging(bytes, /*by_character=*/false, &scratch);
    const std::vector<TokenId>& tokens = scratch.buffers_->tokens;
    const bool merges_to_it = tokens.size() == 1 && tokens[0] == id;
    if (merges_to_it || ignore_merges_) words_->Insert(bytes, id, /*whole_only=*/!merges_to_it);
  }
}

void BpeModel::BytesToTokens(std::string_view piece, std::vector<TokenId>* tokens) const {
  tokens->clear();
  bool after_unk = false;
  for (const char c : piece) {
    const TokenId token = byte_tokens_[static_cast<uint8_t>(c)];
    if (token != kNoToken) {
      tokens->push_back(token);
    } else if (unk_ != kNoToken && !(fuse_unk_ && after_unk)) {
      tokens->push_back(unk_);
    }
    after_unk = token == kNoToken;
  }
}

void BpeModel::CharactersToTokens(std::string_view piece, std::vector<TokenId>* tokens) const {
  tokens->clear();
  bool unk_waits = false;  // an unk_token goes before the next known character, not before bytes
  for (size_t i = 0; i < piece.size();) {
    const CodePoint c = DecodeUtf8(piece.data() + i);
    const std::string_view bytes = piece.substr(i, c.size);
    i += c.size;
    const auto known = character_tokens_.find(c.value);
    if (known != character_tokens_.end()) {
      if (unk_waits) tokens->push_back(unk_);
      unk_waits = false;
      tokens->push_back(known->second);
      continue;
    }
    if (fallback_.Append(bytes, tokens)) continue;
    if (unk_ == kNoToken) continue;
    if (unk_waits && !fuse_unk_) tokens->push_back(unk_);
    unk_waits = true;
  }
  if (unk_waits) tokens->push_back(unk_);
}

uint32_t BpeModel::MergeShort(BpeScratch* scratch) const {
  std::vector<TokenId>& tokens = scratch->buffers_->tokens;
  std::array<Merge, kShortWord> merges;  // merges[i]: of tokens i and i + 1
  size_t count = tokens.size();
  for (size_t i = 0; i + 1 < count; ++i) merges[i] = merges_.Find(tokens[i], tokens[i + 1]);
  uint32_t highest = 0;
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (merges[i].rank < merges[best].rank) best = i;
    }
    if (merges[best].rank == Merge::kNone) break;
    highest = std::max(highest, merges[best].rank);
    tokens[best] = merges[best].result;
    for (size_t i = best + 1; i + 1 < count; ++i) {
      tokens[i] = tokens[i + 1];
      merges[i - 1] = merges[i];
    }
    --count;
    if (best > 0) merges[best - 1] = merges_.Find(tokens[best - 1], tokens[best]);
    if (best + 1 < count) merges[best] = merges_.Find(tokens[best], tokens[best + 1]);
  }
  tokens.resize(count);
  return highest;
}

void BpeModel::MergeLong(BpeScratch* scratch) const {
  using Candidate = BpeScratch::Buffers::Candidate;
  std::vector<TokenId>& tokens = scratch->buffers_->tokens;
  auto& nodes = scratch->buffers_->nodes;
  auto& heap = scratch->buffers_->heap;
  const auto count = static_cast<int32_t>(tokens.size());
  nodes.clear();
  heap.clear();
  for (int32_t i = 0; i < count; ++i) {
    nodes.push_back({tokens[i], i - 1, i + 1 < count ? i + 1 : -1});
  }
  const auto add = [&](int32_t node) {
    const int32_t next = nodes[node].next;
    const Merge merge = merges_.Find(nodes[node].token, nodes[next].token);
    if (merge.rank == Merge::kNone) return false;
    heap.push_back({merge.rank, static_cast<uint32_t>(node), nodes[node].token, nodes[next].token,
                    merge.result});
    return true;
  };
  const auto push = [&](int32_t node) {
    if (add(node)) std::push_heap(heap.begin(), heap.end());
  };
  for (int32_t i = 0; i + 1 < count; ++i) add(i);
  std::make_heap(heap.begin(), heap.end());
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end());
    const Candidate top = heap.back();
    heap.pop_back();
    auto& node = nodes[top.node];
    // Outdated when one of the two has merged with another neighbour since.
    if (node.token != top.left || node.next < 0 || nodes[node.next].token != top.right) continue;
    auto& gone = nodes[node.next];
    node.token = top.result;
    node.next = gone.next;
    gone.token = kNoToken;
    if (node.next >= 0) {
      nodes[node.next].previous = static_cast<int32_t>(top.node);
      push(static_cast<int32_t>(top.node));
    }
    if (node.previous >= 0) push(node.previous);
  }
  tokens.clear();
  for (int32_t i = 0; i >= 0; i = nodes[i].next) tokens.push_back(nodes[i].token);
}

bool BpeModel::WholeCharactersToTokens(std::string_view piece, std::vector<TokenId>* tokens) const {
  tokens->clear();
  for (size_t i = 0; i < piece.size();) {
    const CodePoint c = DecodeUtf8(piece.data() + i);
    i += c.size;
    if (c.size == 1) {
      tokens->push_back(byte_tokens_[c.value]);
      continue;
    }
    const auto known = character_tokens_.find(c.value);
    if (known == character_tokens_.end()) return false;
    tokens->push_back(known->second);
  }
  return true;
}

void BpeModel::EncodeByMerging(std::string_view piece, bool by_character,
                               BpeScratch* scratch) const {
  std::vector<TokenId>* const tokens = &scratch->buffers_->tokens;
  if (!byte_level_) {
    CharactersToTokens(piece, tokens);
  } else if (!by_character || !WholeCharactersToTokens(piece, tokens)) {
    BytesToTokens(piece, tokens);
  }
  if (tokens->size() < 2) return;
  if (tokens->size() <= kShortWord) {
    MergeShort(scratch);
  } else {
    MergeLong(scratch);
  }
}

[[gnu::noinline]] void BpeModel::EncodeUncached(std::string_view piece, const WordKey& key,
                                                Range range, const char* text_end,
                                                BpeScratch* scratch, TokenOutput* output) const {
  auto& bucket = scratch->buffers_->cache[BucketOf(key)];
  const WordTable::Word* const word = words_->Find(piece, key);
  const bool whole = range == Range::kPiece;
  if (word != nullptr && (whole || !word->whole_only)) {
    output->Append(word->id);
    if (key.is_inline() && !word->whole_only) {
      bucket.Store(key, {word->id, kNoToken, kNoToken, kNoToken});
    }
    return;
  }
  const bool ends_in_ascii = static_cast<int8_t>(piece.back()) >= 0;
  if (whole && boundaries_.has_value() && piece.size() > kPartBytes && !ends_in_ascii) {
    EncodeParts(piece, text_end, scratch, output);
    return;
  }
  EncodeByMerging(piece, range == Range::kCharacters, scratch);
  const std::vector<TokenId>& tokens = scratch->buffers_->tokens;
  output->Append(tokens);
  if (!key.is_inline() || tokens.size() > TokenOutput::kGroup || word != nullptr) return;
  std::array<TokenId, TokenOutput::kGroup> ids;
  ids.fill(kNoToken);
  std::copy(tokens.begin(), tokens.end(), ids.begin());
  bucket.Store(key, ids);
}

inline void BpeModel::EncodeKeyed(std::string_view piece, const WordKey& key, Range range,
                                  const char* text_end, BpeScratch* scratch,
                                  TokenOutput* output) const {
  const auto& [first, second] = scratch->buffers_->cache[BucketOf(key)].pieces;
  const bool is_second = second.key == key;
  if (is_second || first.key == key) [[likely]] {
    output->Append((is_second ? second : first).ids);
  } else {
    EncodeUncached(piece, key, range, text_end, scratch, output);
  }
}

void BpeModel::EncodeParts(std::string_view piece, const char* text_end, BpeScratch* scratch,
                           TokenOutput* output) const {
  while (!piece.empty()) {
    const MergeBoundaries::Part part = boundaries_->FirstPart(piece, text_end);
    const std::string_view bytes = piece.substr(0, part.size);
    const WordKey key = WordKey::Of(bytes, text_end);
    EncodeKeyed(bytes, key, RangeOf(part), text_end, scratch, output);
    piece.remove_prefix(part.size);
  }
}

void BpeModel::FillBlock(std::string_view text, std::span<const Piece>* pieces,
                         std::string_view* rest, const BpeScratch& scratch, Block* block) const {
  const bool cut = boundaries_.has_value() && !ignore_merges_;
  const char* const text_end = text.data() + text.size();
  const auto* const cache = scratch.buffers_->cache.data();
  block->size = 0;
  const auto add = [&](std::string_view bytes, Range range) {
    const WordKey key = WordKey::Of(bytes, text_end);
    __builtin_prefetch(&cache[BucketOf(key)]);
    block->items[block->size++] = {bytes, key, range};
  };
  while (block->size < block->items.size()) {
    if (!rest->empty()) {
      const MergeBoundaries::Part part = boundaries_->FirstPart(*rest, text_end);
      add(rest->substr(0, part.size), RangeOf(part));
      rest->remove_prefix(part.size);
      continue;
    }
    if (pieces->empty()) return;
    const std::string_view piece = pieces->front().In(text);
    *pieces = pieces->subspan(1);
    if (cut && piece.size() > kPartBytes && BeginsWide(piece)) {
      *rest = piece;
    } else {
      add(piece, Range::kPiece);
    }
  }
}

void BpeModel::Encode(std::string_view text, std::span<const Piece> pieces, BpeScratch* scratch,
                      std::vector<TokenId>* ids) const {
  const char* const text_end = text.data() + text.size();
  TokenOutput output(ids);
  Block block;
  std::string_view rest;  // of a piece that is being cut
  while (!pieces.empty() || !rest.empty()) {
    FillBlock(text, &pieces, &rest, *scratch, &block);
    for (const Block::Item& item : std::span(block.items).first(block.size)) {
      EncodeKeyed(item.bytes, item.key, item.range, text_end, scratch, &output);
    }
  }
}

}  // namespace essor::model
