#include "model/tokenizer/bpe_model.h"

#include <algorithm>
#include <bit>
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
constexpr size_t kCacheSlots = 8192;
constexpr size_t kCachedTokens = 7;

// Multiply-and-fold; the constants are fractions of the golden ratio and of sqrt(3).
uint64_t Mix(uint64_t a, uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a ^ 0x9e3779b97f4a7c15u) * (b ^ 0xbb67ae8584caa73bu);
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

uint64_t LoadBytes(const char* data, size_t size) {
  uint64_t value = 0;
  std::memcpy(&value, data, size);
  return value;
}

uint64_t HashBytes(std::string_view bytes, uint64_t seed) {
  uint64_t hash = Mix(seed, bytes.size());
  while (bytes.size() > 8) {
    hash = Mix(hash, LoadBytes(bytes.data(), 8));
    bytes.remove_prefix(8);
  }
  return Mix(hash, LoadBytes(bytes.data(), bytes.size()));
}

uint64_t PairKey(TokenId left, TokenId right) { return (uint64_t{left} << 32) | right; }

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

// At most half full.
size_t TableSize(size_t entries) { return std::bit_ceil(std::max<size_t>(entries, 4) * 2); }

}  // namespace

WordKey WordKey::Of(std::string_view word, const char* text_end) {
  WordKey key;
  const size_t size = word.size();
  if (size > kInlineBytes) {
    key.low = HashBytes(word, 1);
    key.high = HashBytes(word, 2) | (uint64_t{0xff} << 56);
    return key;
  }
  if (text_end - word.data() >= 16) {
    std::memcpy(&key.low, word.data(), 8);
    std::memcpy(&key.high, word.data() + 8, 8);
    const auto mask = [](size_t bytes) {
      return bytes >= 8 ? ~uint64_t{0} : (uint64_t{1} << (8 * bytes)) - 1;
    };
    key.low &= mask(size);
    key.high &= size > 8 ? mask(size - 8) : 0;
  } else {
    key.low = LoadBytes(word.data(), std::min<size_t>(size, 8));
    if (size > 8) key.high = LoadBytes(word.data() + 8, size - 8);
  }
  key.high |= uint64_t{size} << 56;
  return key;
}

uint64_t WordKey::Hash() const { return Mix(low, high); }

struct BpeScratch::Buffers {
  struct CacheSlot {
    WordKey key;  // all zero: free (no piece is empty)
    uint32_t count = 0;
    std::array<TokenId, kCachedTokens> ids;
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

  std::vector<CacheSlot> cache = std::vector<CacheSlot>(kCacheSlots);
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
  model->AddWords(definition);
  return model;
}

absl::Status BpeModel::AddSymbols(const BpeDefinition& definition) {
  byte_tokens_.fill(kNoToken);
  byte_level_ = definition.byte_level;
  fuse_unk_ = definition.fuse_unk;
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
  merges_.resize(TableSize(definition.merges.size()));
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
    InsertMerge(left_id, right_id, {rank, result});
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
  merges_.resize(TableSize(found.size()));
  for (const Found& merge : found) InsertMerge(merge.left, merge.right, merge.merge);
}

// Of a pair given twice, the last rank holds.
void BpeModel::InsertMerge(TokenId left, TokenId right, const Merge& merge) {
  const uint64_t pair = PairKey(left, right);
  size_t slot = Mix(pair, 0) & (merges_.size() - 1);
  while (merges_[slot].pair != UINT64_MAX && merges_[slot].pair != pair) {
    slot = (slot + 1) & (merges_.size() - 1);
  }
  merges_[slot] = {pair, merge};
}

void BpeModel::AddWords(const BpeDefinition& definition) {
  word_slots_.resize(TableSize(definition.vocab.size()));
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
    if (!definition.ignore_merges) {
      EncodeByMerging(bytes, &scratch);
      const std::vector<TokenId>& tokens = scratch.buffers_->tokens;
      if (tokens.size() != 1 || tokens[0] != id) continue;
    }
    InsertWord(bytes, id);
  }
}

void BpeModel::InsertWord(std::string_view word, TokenId id) {
  const WordKey key = WordKey::Of(word, word.data() + word.size());
  size_t slot = key.Hash() & (word_slots_.size() - 1);
  while (word_slots_[slot].id != kNoToken) slot = (slot + 1) & (word_slots_.size() - 1);
  word_slots_[slot] = {.key = key,
                       .id = id,
                       .offset = static_cast<uint32_t>(words_.size()),
                       .size = static_cast<uint32_t>(word.size())};
  if (!key.is_inline()) words_.append(word);
}

const BpeModel::WordSlot* BpeModel::FindWord(std::string_view word, const WordKey& key) const {
  for (size_t slot = key.Hash() & (word_slots_.size() - 1); word_slots_[slot].id != kNoToken;
       slot = (slot + 1) & (word_slots_.size() - 1)) {
    const WordSlot& candidate = word_slots_[slot];
    if (candidate.key != key) continue;
    if (key.is_inline()) return &candidate;
    if (std::string_view(words_).substr(candidate.offset, candidate.size) == word) {
      return &candidate;
    }
  }
  return nullptr;
}

BpeModel::Merge BpeModel::FindMerge(TokenId left, TokenId right) const {
  const uint64_t pair = PairKey(left, right);
  for (size_t slot = Mix(pair, 0) & (merges_.size() - 1); merges_[slot].pair != UINT64_MAX;
       slot = (slot + 1) & (merges_.size() - 1)) {
    if (merges_[slot].pair == pair) return merges_[slot].merge;
  }
  return {};
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

void BpeModel::MergeShort(BpeScratch* scratch) const {
  std::vector<TokenId>& tokens = scratch->buffers_->tokens;
  std::array<Merge, kShortWord> merges;  // merges[i]: of tokens i and i + 1
  size_t count = tokens.size();
  for (size_t i = 0; i + 1 < count; ++i) merges[i] = FindMerge(tokens[i], tokens[i + 1]);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (merges[i].rank < merges[best].rank) best = i;
    }
    if (merges[best].rank == UINT32_MAX) break;
    tokens[best] = merges[best].result;
    for (size_t i = best + 1; i + 1 < count; ++i) {
      tokens[i] = tokens[i + 1];
      merges[i - 1] = merges[i];
    }
    --count;
    if (best > 0) merges[best - 1] = FindMerge(tokens[best - 1], tokens[best]);
    if (best + 1 < count) merges[best] = FindMerge(tokens[best], tokens[best + 1]);
  }
  tokens.resize(count);
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
    const Merge merge = FindMerge(nodes[node].token, nodes[next].token);
    if (merge.rank == UINT32_MAX) return false;
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

void BpeModel::EncodeByMerging(std::string_view piece, BpeScratch* scratch) const {
  if (byte_level_) {
    BytesToTokens(piece, &scratch->buffers_->tokens);
  } else {
    CharactersToTokens(piece, &scratch->buffers_->tokens);
  }
  const size_t count = scratch->buffers_->tokens.size();
  if (count < 2) return;
  if (count <= kShortWord) {
    MergeShort(scratch);
  } else {
    MergeLong(scratch);
  }
}

void BpeModel::Encode(std::string_view piece, const char* text_end, BpeScratch* scratch,
                      std::vector<TokenId>* ids) const {
  const WordKey key = WordKey::Of(piece, text_end);
  if (const WordSlot* word = FindWord(piece, key)) {
    ids->push_back(word->id);
    return;
  }
  const std::vector<TokenId>& tokens = scratch->buffers_->tokens;
  if (!key.is_inline()) {
    EncodeByMerging(piece, scratch);
    ids->insert(ids->end(), tokens.begin(), tokens.end());
    return;
  }
  auto& slot = scratch->buffers_->cache[(key.Hash() >> 32) & (kCacheSlots - 1)];
  if (slot.key != key) {
    EncodeByMerging(piece, scratch);
    if (tokens.size() > kCachedTokens) {
      ids->insert(ids->end(), tokens.begin(), tokens.end());
      return;
    }
    slot.key = key;
    slot.count = static_cast<uint32_t>(tokens.size());
    std::copy(tokens.begin(), tokens.end(), slot.ids.begin());
  }
  ids->insert(ids->end(), slot.ids.begin(), slot.ids.begin() + slot.count);
}

}  // namespace essor::model
