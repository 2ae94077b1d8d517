#include "model/tokenizer/unigram_model.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "model/tokenizer/byte_fallback.h"
#include "model/tokenizer/utf8.h"

namespace essor::model {
namespace {

uint64_t EdgeKey(uint32_t node, uint8_t byte) { return (uint64_t{node} << 8) | byte; }

uint64_t HashEdge(uint64_t key) {
  key *= 0x9e3779b97f4a7c15u;
  return key ^ (key >> 29);
}

}  // namespace

absl::StatusOr<std::unique_ptr<UnigramModel>> UnigramModel::Create(
    const BpeDefinition& vocabulary, const UnigramDefinition& definition) {
  auto model = std::unique_ptr<UnigramModel>(new UnigramModel());
  model->nodes_.emplace_back();
  model->edges_.resize(16);
  model->byte_tokens_.assign(256, kNoToken);
  model->unk_score_ = definition.unk_score;
  for (size_t i = 0; i < vocabulary.vocab.size(); ++i) {
    const auto& [text, id] = vocabulary.vocab[i];
    if (text == vocabulary.unk_token) model->unk_ = id;
    const auto byte = ByteOfFallbackToken(text);
    if (vocabulary.byte_fallback && byte.has_value() && text == FallbackToken(*byte)) {
      model->byte_tokens_[*byte] = id;
    }
    const double score = definition.scores[i];
    if (score == -INFINITY || text.empty()) continue;
    if (text.size() > kTokenBytesMax) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "token %d has %d bytes; a unigram model's may have %d", id, text.size(), kTokenBytesMax));
    }
    model->AddToken(text, id, score);
  }
  if (model->unk_ == kNoToken) {
    return absl::InvalidArgumentError("a unigram model needs an unknown token");
  }
  return model;
}

void UnigramModel::AddToken(std::string_view text, TokenId id, double score) {
  uint32_t node = 0;
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    uint32_t next = Child(node, byte);
    if (next == 0) {
      next = static_cast<uint32_t>(nodes_.size());
      nodes_.emplace_back();
      if (nodes_.size() * 2 > edges_.size()) {
        std::vector<Edge> old(edges_.size() * 2);
        std::swap(old, edges_);
        for (const Edge& edge : old) {
          if (edge.key != UINT64_MAX) InsertEdge(edge);
        }
      }
      InsertEdge({EdgeKey(node, byte), next});
    }
    node = next;
  }
  nodes_[node] = {id, score};
}

void UnigramModel::InsertEdge(const Edge& edge) {
  size_t slot = HashEdge(edge.key) & (edges_.size() - 1);
  while (edges_[slot].key != UINT64_MAX) slot = (slot + 1) & (edges_.size() - 1);
  edges_[slot] = edge;
}

uint32_t UnigramModel::Child(uint32_t node, uint8_t byte) const {
  const uint64_t key = EdgeKey(node, byte);
  for (size_t slot = HashEdge(key) & (edges_.size() - 1); edges_[slot].key != UINT64_MAX;
       slot = (slot + 1) & (edges_.size() - 1)) {
    if (edges_[slot].key == key) return edges_[slot].child;
  }
  return 0;
}

std::vector<UnigramModel::Best> UnigramModel::FindBest(std::string_view piece) const {
  std::vector<Best> best(piece.size() + 1);
  size_t begin = 0;
  while (begin < piece.size()) {
    const double so_far = best[begin].score;
    const size_t character_end = begin + DecodeUtf8(piece.data() + begin).size;
    const auto offer = [&](size_t end, TokenId id, double score) {
      Best& target = best[end];
      if (target.begin >= 0 && so_far + score <= target.score) return;
      target = {so_far + score, static_cast<int32_t>(begin), id};
    };
    bool is_token = false;  // the character alone
    uint32_t node = 0;
    for (size_t end = begin; end < piece.size();) {
      node = Child(node, static_cast<uint8_t>(piece[end]));
      if (node == 0) break;
      ++end;
      if (nodes_[node].id == kNoToken) continue;
      offer(end, nodes_[node].id, nodes_[node].score);
      is_token |= end == character_end;
    }
    if (!is_token) offer(character_end, unk_, unk_score_);
    begin = character_end;
  }
  return best;
}

void UnigramModel::AppendUnknown(std::string_view text, std::vector<TokenId>* ids) const {
  const auto token = [this](char byte) { return byte_tokens_[static_cast<uint8_t>(byte)]; };
  if (std::any_of(text.begin(), text.end(), [&](char byte) { return token(byte) == kNoToken; })) {
    ids->push_back(unk_);
    return;
  }
  for (const char byte : text) ids->push_back(token(byte));
}

absl::Status UnigramModel::Encode(std::string_view piece, std::vector<TokenId>* ids) const {
  if (piece.size() > kPieceBytesMax) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "a word of %d bytes; a unigram model takes %d", piece.size(), kPieceBytesMax));
  }
  const std::vector<Best> best = FindBest(piece);
  std::vector<Piece> path;  // from the last token to the first
  for (size_t end = piece.size(); end > 0;) {
    const auto begin = static_cast<uint32_t>(best[end].begin);
    path.push_back({begin, static_cast<uint32_t>(end)});
    end = begin;
  }
  for (size_t i = path.size(); i-- > 0;) {
    const TokenId id = best[path[i].end].id;
    if (id != unk_) {
      ids->push_back(id);
      continue;
    }
    Piece run = path[i];
    for (; i > 0 && best[path[i - 1].end].id == unk_; --i) run.end = path[i - 1].end;
    AppendUnknown(run.In(piece), ids);
  }
  return absl::OkStatus();
}

}  // namespace essor::model
