#include "model/tokenizer/unigram_model.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "model/tokenizer/byte_fallback.h"
#include "model/tokenizer/utf8.h"

namespace essor::model {
namespace {

uint64_t EdgeKey(uint32_t node, uint8_t byte) { return (uint64_t{node} << 8) | byte; }

}  // namespace

absl::StatusOr<std::unique_ptr<UnigramModel>> UnigramModel::Create(
    const BpeDefinition& vocabulary, const UnigramDefinition& definition) {
  auto model = std::unique_ptr<UnigramModel>(new UnigramModel());
  model->nodes_.emplace_back();
  model->unk_score_ = definition.unk_score;
  for (size_t i = 0; i < vocabulary.vocab.size(); ++i) {
    const auto& [text, id] = vocabulary.vocab[i];
    if (text == vocabulary.unk_token) model->unk_ = id;
    if (vocabulary.byte_fallback) model->byte_tokens_.Add(text, id);
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
    const auto [edge, is_new] =
        edges_.try_emplace(EdgeKey(node, byte), static_cast<uint32_t>(nodes_.size()));
    if (is_new) nodes_.emplace_back();
    node = edge->second;
  }
  nodes_[node] = {id, score};
}

uint32_t UnigramModel::Child(uint32_t node, uint8_t byte) const {
  const auto found = edges_.find(EdgeKey(node, byte));
  return found == edges_.end() ? 0 : found->second;
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
  if (!byte_tokens_.Append(text, ids)) ids->push_back(unk_);
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
