#include "model/tokenizer/sentencepiece.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "model/tokenizer/json_fields.h"
#include "model/tokenizer/pipeline_tokenizer.h"
#include "model/tokenizer/protobuf_wire.h"
#include "model/tokenizer/utf8.h"

namespace essor::model {
namespace {

using Kind = ProtobufField::Kind;

// The longest piece; SentencePiece itself trains up to 16 characters unless told otherwise.
constexpr size_t kPieceBytesMax = 512;

enum PieceType : uint64_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};
enum ModelType : uint64_t { kUnigram = 1, kBpe = 2 };

struct SentencePieceFile {
  struct Piece {
    std::string text;
    float score = 0;
    uint64_t type = kNormal;
  };

  std::vector<Piece> pieces;
  // trainer_spec; ids below zero: there is no such token.
  uint64_t model_type = kUnigram;
  bool byte_fallback = false;
  bool blank_as_suffix = false;
  int32_t bos_id = 1;
  int32_t eos_id = 2;
  // normalizer_spec
  bool has_character_map = false;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
};

// Calls use(field) for every field of `message`.
template <typename Use>
absl::Status ForEachField(std::string_view message, Use use) {
  ProtobufReader reader(message);
  while (!reader.AtEnd()) {
    ESSOR_ASSIGN_OR_RETURN(const ProtobufField field, reader.Next());
    use(field);
  }
  return absl::OkStatus();
}

absl::StatusOr<SentencePieceFile::Piece> ReadPiece(std::string_view message) {
  SentencePieceFile::Piece piece;
  ESSOR_RETURN_IF_ERROR(ForEachField(message, [&](const ProtobufField& field) {
    if (field.Is(1, Kind::kBytes)) piece.text = std::string(field.bytes);
    if (field.Is(2, Kind::kFixed32)) piece.score = field.AsFloat();
    if (field.Is(3, Kind::kVarint)) piece.type = field.value;
  }));
  return piece;
}

absl::Status ReadTrainerSpec(std::string_view message, SentencePieceFile* file) {
  return ForEachField(message, [&](const ProtobufField& field) {
    if (field.kind != Kind::kVarint) return;
    if (field.number == 3) file->model_type = field.value;
    if (field.number == 24) file->blank_as_suffix = field.value != 0;
    if (field.number == 35) file->byte_fallback = field.value != 0;
    if (field.number == 41) file->bos_id = static_cast<int32_t>(field.value);
    if (field.number == 42) file->eos_id = static_cast<int32_t>(field.value);
  });
}

absl::Status ReadNormalizerSpec(std::string_view message, SentencePieceFile* file) {
  return ForEachField(message, [&](const ProtobufField& field) {
    if (field.Is(2, Kind::kBytes)) file->has_character_map = !field.bytes.empty();
    if (field.Is(3, Kind::kVarint)) file->add_dummy_prefix = field.value != 0;
    if (field.Is(4, Kind::kVarint)) file->remove_extra_whitespaces = field.value != 0;
    if (field.Is(5, Kind::kVarint)) file->escape_whitespaces = field.value != 0;
  });
}

absl::StatusOr<SentencePieceFile> ReadFile(std::string_view model) {
  SentencePieceFile file;
  ProtobufReader reader(model);
  while (!reader.AtEnd()) {
    ESSOR_ASSIGN_OR_RETURN(const ProtobufField field, reader.Next());
    if (field.Is(1, Kind::kBytes)) {
      ESSOR_ASSIGN_OR_RETURN(auto piece, ReadPiece(field.bytes));
      file.pieces.push_back(std::move(piece));
    } else if (field.Is(2, Kind::kBytes)) {
      ESSOR_RETURN_IF_ERROR(ReadTrainerSpec(field.bytes, &file));
    } else if (field.Is(3, Kind::kBytes)) {
      ESSOR_RETURN_IF_ERROR(ReadNormalizerSpec(field.bytes, &file));
    }
  }
  return file;
}

absl::Status PieceError(size_t index, std::string_view problem) {
  return absl::InvalidArgumentError(absl::StrFormat("piece %d: %s", index, problem));
}

absl::Status CheckSupport(const SentencePieceFile& file) {
  if (file.model_type != kUnigram && file.model_type != kBpe) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "model_type %d is not supported; unigram (1) and BPE (2) are", file.model_type));
  }
  if (file.has_character_map) {
    return absl::InvalidArgumentError(
        "normalizer_spec.precompiled_charsmap is not supported; only the rule \"identity\" is");
  }
  if (file.blank_as_suffix) {
    return absl::InvalidArgumentError("treat_whitespace_as_suffix is not supported");
  }
  return absl::OkStatus();
}

absl::Status CheckPieces(const SentencePieceFile& file) {
  if (file.pieces.empty() || file.pieces.size() > kTokenIdMax) {
    return absl::InvalidArgumentError(absl::StrFormat("%d pieces", file.pieces.size()));
  }
  absl::flat_hash_set<std::string> texts;
  size_t unknown = 0;
  for (size_t i = 0; i < file.pieces.size(); ++i) {
    const SentencePieceFile::Piece& piece = file.pieces[i];
    if (piece.text.empty()) return PieceError(i, "no text");
    if (!IsValidUtf8(piece.text)) return PieceError(i, "not UTF-8 text");
    if (piece.text.size() > kPieceBytesMax) {
      return PieceError(
          i, absl::StrFormat("%d bytes; the limit is %d", piece.text.size(), kPieceBytesMax));
    }
    if (!texts.insert(piece.text).second) {
      return PieceError(i, absl::StrFormat("\"%s\" is given twice", piece.text));
    }
    if (!std::isfinite(piece.score)) return PieceError(i, "the score is not a finite number");
    if (piece.type < kNormal || piece.type > kByte) {
      return PieceError(i, absl::StrFormat("type %d is not known", piece.type));
    }
    if (piece.type == kUnused && file.model_type == kBpe) {
      return PieceError(i, "unused pieces are not supported in BPE");
    }
    unknown += piece.type == kUnknown;
  }
  if (unknown == 1) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat("%d unknown pieces instead of one", unknown));
}

// SentencePiece merges the pair whose joined piece has the highest score, the leftmost of equals.
std::vector<uint32_t> MergeRanks(const std::vector<SentencePieceFile::Piece>& pieces) {
  std::vector<uint32_t> order(pieces.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return pieces[a].score > pieces[b].score; });
  std::vector<uint32_t> ranks(pieces.size(), BpeDefinition::kNoRank);
  uint32_t rank = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    if (i > 0 && pieces[order[i]].score != pieces[order[i - 1]].score) ++rank;
    if (pieces[order[i]].type == kNormal) ranks[order[i]] = rank;
  }
  return ranks;
}

UnigramDefinition UnigramScores(const std::vector<SentencePieceFile::Piece>& pieces) {
  UnigramDefinition unigram;
  double lowest = std::numeric_limits<double>::infinity();
  for (const SentencePieceFile::Piece& piece : pieces) {
    const bool found_in_text = piece.type == kNormal;
    if (found_in_text) lowest = std::min<double>(lowest, piece.score);
    unigram.scores.push_back(found_in_text ? piece.score
                                           : -std::numeric_limits<double>::infinity());
  }
  unigram.unk_score = (std::isfinite(lowest) ? lowest : 0) - kUnigramUnkPenalty;
  return unigram;
}

void AddTokens(const SentencePieceFile& file, const TokenizerConfig& config,
               TokenizerDefinition* definition) {
  absl::flat_hash_set<TokenId> configured;
  for (const AddedToken& token : config.added_tokens) configured.insert(token.id);
  for (size_t i = 0; i < file.pieces.size(); ++i) {
    const SentencePieceFile::Piece& piece = file.pieces[i];
    const auto id = static_cast<TokenId>(i);
    definition->model.vocab.emplace_back(piece.text, id);
    if (piece.type == kUnknown) definition->model.unk_token = piece.text;
    const bool is_special = piece.type == kControl || piece.type == kUnknown;
    if (configured.contains(id) || (!is_special && piece.type != kUserDefined)) continue;
    definition->added_tokens.push_back({.content = piece.text,
                                        .id = id,
                                        .special = is_special,
                                        .normalized = !is_special,
                                        .verbatim = !is_special});
  }
  for (AddedToken token : config.added_tokens) {
    // The class that these files belong to searches the text as it is: normalised, a token would
    // begin with the blank that is put before every text.
    token.normalized = false;
    definition->added_tokens.push_back(std::move(token));
  }
}

std::optional<TokenId> IdIn(const SentencePieceFile& file, int32_t id) {
  if (id < 0 || static_cast<size_t>(id) >= file.pieces.size()) return std::nullopt;
  return static_cast<TokenId>(id);
}

}  // namespace

absl::StatusOr<TokenizerDefinition> ParseSentencePiece(std::string_view model,
                                                       const TokenizerConfig& config) {
  if (model.size() > kSentencePieceBytesMax) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%d bytes; the limit is %d", model.size(), kSentencePieceBytesMax));
  }
  ESSOR_ASSIGN_OR_RETURN(const SentencePieceFile file, ReadFile(model));
  ESSOR_RETURN_IF_ERROR(CheckSupport(file));
  ESSOR_RETURN_IF_ERROR(CheckPieces(file));
  TokenizerDefinition definition;
  definition.model.byte_level = false;
  definition.model.byte_fallback = file.byte_fallback;
  definition.model.fuse_unk = true;
  AddTokens(file, config, &definition);
  if (file.model_type == kBpe) {
    definition.model.ranks = MergeRanks(file.pieces);
  } else {
    definition.unigram = UnigramScores(file.pieces);
  }
  definition.normalizers.emplace_back(BlanksStep{.remove_extra = file.remove_extra_whitespaces,
                                                 .add_dummy = file.add_dummy_prefix,
                                                 .at_start_only = !config.legacy,
                                                 .escape = file.escape_whitespaces});
  definition.decoder = {.replacements = {{"\u2581", " "}},
                        .byte_fallback = file.byte_fallback,
                        .start = file.add_dummy_prefix ? TextStart::kDropBlank : TextStart::kAsIs};
  ESSOR_RETURN_IF_ERROR(
      AddBosAndEos(config, IdIn(file, file.bos_id), IdIn(file, file.eos_id), &definition));
  return definition;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromSentencePiece(
    std::string_view model, const TokenizerConfig& config) {
  auto definition = ParseSentencePiece(model, config);
  if (!definition.ok()) return InFile(definition.status(), "tokenizer.model");
  auto tokenizer = PipelineTokenizer::Create(*std::move(definition));
  if (!tokenizer.ok()) return InFile(tokenizer.status(), "tokenizer.model");
  return tokenizer;
}

}  // namespace essor::model
