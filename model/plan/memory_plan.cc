#include "model/plan/memory_plan.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <variant>

#include "absl/strings/str_cat.h"
#include "model/plan/attention_shape.h"
#include "model/plan/byte_size.h"
#include "model/plan/scratch_widths.h"
#include "model/spec/logical_weights.h"

namespace essor::model {
namespace {

constexpr uint64_t kFloatBytes = 4;
// Pieces of weights and workspaces begin on cache lines.
constexpr uint64_t kAlignment = 64;

uint64_t RoundUp(uint64_t value, uint64_t to) { return (value + to - 1) / to * to; }

// e4m3 in words of 4, those that a boundary of blocks cuts twice, and a float per block.
uint64_t Fp8RowBytes(const Range& columns) {
  constexpr uint64_t kBlock = 128;
  constexpr uint64_t kWord = 4;
  const uint64_t blocks = (columns.end + kBlock - 1) / kBlock - columns.begin / kBlock;
  const uint64_t cut_words = columns.begin % kWord == 0 ? 0 : blocks - 1;
  return RoundUp(columns.size(), kWord) + kWord * cut_words + kFloatBytes * blocks;
}

// Bytes that the packed formats of kernels/cpu/pack_layout.h take for the columns of one row.
// `model` may not depend on `kernels`, so the figures stand here again; packed_bytes_test compares
// the two.
uint64_t PackedRowBytes(DType stored, const Range& range) {
  const uint64_t columns = range.size();
  switch (stored) {
    case DType::kF32:
      return 4 * columns;
    case DType::kQ8_0:
      return columns / 32 * 34;  // a byte each and a half-precision scale
    case DType::kQ4_0:
    case DType::kQ4_1:
    case DType::kQ4_K:
      return columns / 32 * 20;  // half a byte each, scale and minimum
    case DType::kF8E4M3:
      return Fp8RowBytes(range);
    case DType::kF4E2M1:
    case DType::kOffsetI4:
      return columns / 32 * 18;  // half a byte each and a bfloat16 scale
    default:
      return 2 * RoundUp(columns, 2);  // bfloat16 in pairs
  }
}

// Columns of the widest (part of an) FFN of the rank's layers.
uint64_t WidestFfn(const RankLayout& layout) {
  uint64_t widest = 0;
  for (const RankLayout::Layer& layer : layout.per_layer) {
    widest = std::max({widest, layer.expert_ffn.size(), layer.ffn.size()});
  }
  return widest;
}

// Floats of the rotation tables of one position: layers that rotate alike share one.
uint64_t RotationWidth(const ModelSpec& spec, const RankLayout& layout) {
  std::vector<const RopeSpec*> kinds;
  uint64_t width = 0;
  for (uint64_t layer = layout.layers.begin; layer < layout.layers.end; ++layer) {
    const RopeSpec& rope = RopeOf(spec.layers[layer].attention);
    const bool is_new = std::none_of(kinds.begin(), kinds.end(),
                                     [&](const RopeSpec* kind) { return *kind == rope; });
    if (!is_new) continue;
    kinds.push_back(&rope);
    width += rope.rotary_dim;
  }
  return width;
}

// Rows of logits that the head computes at once (worker/engine/output_head.h).
constexpr uint64_t kHeadRows = 64;
constexpr uint64_t kGatheredRows = 8;
// The most that the ranks tell each other of those rows otherwise: candidates of each.
constexpr uint64_t kChoicePayload = kHeadRows * (16 + 256 * 8);
// Threads of a rank that workspaces are planned for; more would need a larger figure here.
constexpr uint64_t kKernelThreads = 64;
constexpr uint64_t kTileRows = 32;
// Alignment of some dozens of arrays, index lists per token.
constexpr uint64_t kSmallPieces = 1 << 20;

uint64_t WidestVocabularySlice(const ModelSpec& spec, const RankLayout& layout) {
  // Slices differ by at most one granule of 64 rows.
  return std::min<uint64_t>(layout.vocab.size() + 64, spec.vocab_size);
}

uint64_t HeadBytes(const ModelSpec& spec, const RankLayout& layout) {
  if (!layout.last_stage) return 0;
  const uint64_t gathered = kGatheredRows * WidestVocabularySlice(spec, layout);
  const uint64_t elements = kHeadRows * (spec.hidden_size + layout.vocab.size()) +
                            gathered * (layout.group_ranks.size() + 1) + 3 * spec.vocab_size;
  return elements * kFloatBytes + kChoicePayload * (layout.group_ranks.size() + 1);
}

uint32_t ContextTokens(const ModelSpec& spec, const ServingLimits& limits) {
  return limits.max_context_tokens == 0 ? spec.max_context_tokens : limits.max_context_tokens;
}

// What is remembered of the tokens of the sequences, for penalties: a mark for each of the slice,
// and which ones have it (worker/engine/token_history.h).
uint64_t HistoryBytes(const ModelSpec& spec, const RankLayout& layout,
                      const ServingLimits& limits) {
  if (!layout.last_stage) return 0;
  const uint64_t marked = std::min<uint64_t>(layout.vocab.size(), ContextTokens(spec, limits));
  return limits.max_sequences * (RoundUp(layout.vocab.size() * 4, 64) + RoundUp(marked * 4, 64));
}

// Inputs and intermediates of an FFN for each chosen expert, in the widest type, and a tile of
// partial sums per thread (two where the intermediates are split in two bfloat16 values).
uint64_t FfnWorkspace(uint64_t top_k, uint64_t hidden, uint64_t ffn, uint64_t rows) {
  return rows * std::max<uint64_t>(top_k, 1) * (hidden + ffn + 2 * kKernelThreads * kTileRows) *
         kFloatBytes;
}

// None on a rank without experts.
ExpertExchangeSizes ExchangeSizesOf(const RankLayout& layout, const ModelSpec& spec,
                                    const ServingLimits& limits) {
  if (ScratchWidthsOf(spec, layout).top_k == 0) return {};
  return ExpertExchangeSizesOf(spec, layout, limits.max_step_tokens);
}

// What a rank with experts keeps to exchange rows with other data-parallel groups: rows that come
// and go, and for each choice an id and a weight.
uint64_t ExpertExchangeBytes(const ExpertExchangeSizes& sizes, const ModelSpec& spec) {
  return (2 * sizes.rows * spec.hidden_size + 2 * sizes.choices) * kFloatBytes;
}

// The inputs of a projection in panels of the widest type, rounded up to whole blocks of 32: those
// of the layers around attention are the widest outside FFNs.
uint64_t LinearWorkspace(uint64_t hidden, const AttentionWidths& attention,
                         const ServingLimits& limits) {
  const uint64_t columns = std::max({hidden, attention.result, attention.query_latent});
  return (RoundUp(columns, 32) * kFloatBytes + kAlignment) * limits.max_step_tokens;
}

// Attention cuts long contexts into partitions of 256 positions when there are fewer tasks than
// threads, and keeps a softmax state for each: those of one row, or 64 MB
// (kernels/cpu/attention_driver.cc).
uint64_t AttentionWorkspace(const RankLayout& layout, const ModelSpec& spec,
                            const ServingLimits& limits) {
  constexpr uint64_t kSplits = 4 * kKernelThreads;
  constexpr uint64_t kPartition = 256;
  constexpr uint64_t kKeysOfTile = 64;
  constexpr uint64_t kQueriesOfTask = 96;
  constexpr uint64_t kTaskBytes = 64;
  constexpr uint64_t kSplitFloats = 16 << 20;
  const uint64_t partitions = ContextTokens(spec, limits) / kPartition + 1;
  uint64_t most = 0;
  for (size_t i = 0; i < layout.per_layer.size(); ++i) {
    const RankLayout::Layer& layer = layout.per_layer[i];
    const AttentionHeads heads =
        AttentionHeadsOf(spec.layers[layout.layers.begin + i].attention, layer);
    if (heads.kv_heads == 0) continue;
    const uint64_t key = RoundUp(heads.key_dim, 16);
    const uint64_t state = RoundUp(heads.value_dim, 16) + 18;  // with maximum, sum, lane sums
    const uint64_t state_sets = std::min(
        kSplits * partitions,
        std::max(kSplitFloats / (heads.group * (state - 16)), partitions * heads.kv_heads));
    const uint64_t tasks =
        (limits.max_step_tokens + limits.max_sequences) * heads.kv_heads + state_sets;
    const uint64_t queries = std::max(kQueriesOfTask, heads.group);
    const uint64_t scratch = (key + state) * kKeysOfTile + queries * (key + 2 * state);
    most = std::max(
        most, (tasks + kSplits) * kTaskBytes +
                  (state_sets * heads.group * state + kKernelThreads * scratch) * kFloatBytes);
  }
  return most;
}

// Scores of 64 rows, 16 MB or one row, and a tile of keys per thread
// (kernels/cpu/index_selection.cc).
uint64_t IndexWorkspace(const RankLayout& layout, const ModelSpec& spec,
                        const ServingLimits& limits) {
  constexpr uint64_t kGroupRows = 64;
  constexpr uint64_t kGroupScores = 4 << 20;
  constexpr uint64_t kKeysOfTile = 64;
  const uint64_t positions = ContextTokens(spec, limits);
  uint64_t most = 0;
  for (size_t i = 0; i < layout.per_layer.size(); ++i) {
    const AttentionHeads heads =
        AttentionHeadsOf(spec.layers[layout.layers.begin + i].attention, layout.per_layer[i]);
    if (heads.chosen == 0) continue;
    const uint64_t rows = std::min<uint64_t>(limits.max_step_tokens, kGroupRows);
    const uint64_t scores = std::min(rows * positions, std::max(kGroupScores, positions));
    const uint64_t tiles = kKernelThreads * RoundUp(heads.index_dim, 16) * kKeysOfTile;
    most = std::max(most, (RoundUp(scores, 16) + tiles) * kFloatBytes);
  }
  return most;
}

uint64_t NumStages(const RankLayout& layout) {
  return (layout.last_stage_rank - layout.first_stage_rank) /
             std::max<uint64_t>(1, layout.stage_ranks.size()) +
         1;
}

uint64_t ExchangeBytesOfGroup(uint64_t members, uint64_t payload) {
  if (members <= 1) return 0;
  // Two payloads, so that a rank may fill one while others still read the other, and a small ring
  // for each member (worker/parallel/segment.h).
  constexpr uint64_t kRingBytesMin = 64 << 10;
  constexpr uint64_t kRingBytesMax = 256 << 10;
  return 2 * RoundUp(payload, 4096) +
         members * std::bit_ceil(std::clamp(payload, kRingBytesMin, kRingBytesMax)) + kSmallPieces;
}

// The weights of one rank without listing every expert: they are alike.
uint64_t WeightBytesOfSpec(const RankLayout& layout, const ModelSpec& spec, DType stored,
                           bool fp32) {
  uint64_t bytes = 0;
  const auto add = [&](const WeightBinding& weight, uint64_t count) {
    const auto part = PartOf(layout, spec, weight);
    if (!part.has_value()) return;
    const WeightSlice slice{.binding = weight, .rows = part->rows, .cols = part->cols};
    bytes += count * RoundUp(PackedBytes(slice, stored, fp32), kAlignment);
  };
  for (const WeightBinding& weight : OuterWeights(spec)) add(weight, 1);
  const auto add_layer = [&](uint64_t number, const Range& experts) {
    const auto weights = LayerWeights(spec, static_cast<uint32_t>(number), /*max_experts=*/1);
    for (WeightBinding weight : weights) {
      const bool expert = weight.expert >= 0;
      if (expert) weight.expert = static_cast<int32_t>(experts.begin);
      add(weight, expert ? experts.size() : 1);
    }
  };
  for (size_t i = 0; i < layout.per_layer.size(); ++i) {
    add_layer(layout.layers.begin + i, layout.per_layer[i].experts);
  }
  for (size_t i = 0; i < layout.per_draft_layer.size(); ++i) {
    add_layer(spec.layers.size() + i, layout.per_draft_layer[i].experts);
  }
  return bytes;
}

// Of KvBytesPerToken, the part of layers whose blocks are those of the last positions.
uint64_t WindowBytesPerToken(const MemoryRequest& request) {
  const RankLayout& layout = *request.layout;
  uint64_t bytes = 0;
  for (size_t i = 0; i < layout.per_layer.size(); ++i) {
    const AttentionSpec& attention = request.spec->layers[layout.layers.begin + i].attention;
    if (!IsWindowed(attention, ContextTokens(*request.spec, request.limits))) continue;
    bytes += KvTokenBytesOf(attention, layout.per_layer[i], request.limits.kv_type).total();
  }
  return bytes;
}

// Everything but the KV cache.
MemoryPlan FixedPart(const MemoryRequest& request) {
  const ModelSpec& spec = *request.spec;
  const RankLayout& layout = *request.layout;
  MemoryPlan plan;
  plan.weight_bytes = request.slices != nullptr
                          ? WeightBytes(*request.slices, request.stored, request.fp32)
                          : WeightBytesOfSpec(layout, spec, request.stored, request.fp32);
  plan.state_bytes = request.limits.max_sequences * StateBytesPerSequence(layout, spec);
  plan.activation_bytes = ActivationBytes(layout, spec, request.limits);
  plan.exchange_bytes = ExchangeBytes(layout, spec, request.limits);
  const uint64_t window_token_bytes = WindowBytesPerToken(request);
  plan.window_block_bytes = window_token_bytes * request.limits.block_tokens;
  plan.block_bytes = (KvBytesPerToken(layout, spec, request.limits.kv_type) - window_token_bytes) *
                     request.limits.block_tokens;
  return plan;
}

uint64_t CeilDivide(uint64_t value, uint64_t by) { return (value + by - 1) / by; }

// Numbers of blocks of both kinds, whatever the memory.
struct BlockNeeds {
  uint64_t blocks_least = 0;  // one sequence of max_context_tokens
  uint64_t blocks_most = 0;   // max_sequences of them
  uint64_t window_least = 0;
  uint64_t window_wanted = 0;  // the windows of max_sequences sequences and the steps in flight
  uint64_t window_most = 0;
};

BlockNeeds BlockNeedsOf(const MemoryRequest& request) {
  const ServingLimits& limits = request.limits;
  const uint64_t block_tokens = limits.block_tokens;
  const uint32_t context = ContextTokens(*request.spec, limits);
  const KvKinds kinds = KvKindsOf(*request.spec, context);
  // Places of the cache, block times slot, are counted in 32 bits
  // (worker/layers/position_selector.h).
  const uint64_t places_max = std::numeric_limits<uint32_t>::max() / block_tokens;
  const uint64_t one = std::min(CeilDivide(context, block_tokens), places_max);
  const uint64_t all = std::min(one * limits.max_sequences, places_max);
  BlockNeeds needs;
  if (kinds.full) needs.blocks_least = one;
  if (kinds.full) needs.blocks_most = all;
  if (kinds.window_tokens == 0) return needs;
  // A window may begin and a chunk may end anywhere in a block.
  const uint64_t window = CeilDivide(kinds.window_tokens, block_tokens) + 1;
  const uint64_t steps_in_flight = NumStages(*request.layout) + 1;
  const uint64_t chunks = steps_in_flight * (CeilDivide(limits.max_step_tokens, block_tokens) + 1);
  needs.window_least = std::min(window + chunks, one);
  needs.window_wanted = std::min(window * limits.max_sequences + chunks, all);
  needs.window_most = std::min(2 * needs.window_wanted, all);
  return needs;
}

uint64_t LeastKvBytes(const MemoryPlan& plan, const BlockNeeds& needs) {
  return needs.blocks_least * plan.block_bytes + needs.window_least * plan.window_block_bytes;
}

// How many of `bytes` each fit `room`, at most `most`.
uint64_t Fitting(uint64_t most, uint64_t room, uint64_t bytes) {
  return bytes == 0 ? most : std::min(most, room / bytes);
}

// `room` is what is left for snapshots and blocks.
KvCapacity Divide(const MemoryRequest& request, const MemoryPlan& plan, const BlockNeeds& needs,
                  uint64_t room) {
  KvCapacity capacity;
  const uint64_t least = LeastKvBytes(plan, needs);
  const uint64_t snapshot_bytes = StateBytesPerSequence(*request.layout, *request.spec);
  const ServingLimits& limits = request.limits;
  if (KvKindsOf(*request.spec, ContextTokens(*request.spec, limits)).states) {
    capacity.num_snapshots = static_cast<uint32_t>(
        Fitting(limits.max_sequences, std::min(room / 4, room - least), snapshot_bytes));
  }
  room -= least + capacity.num_snapshots * snapshot_bytes;

  const uint64_t bytes = plan.window_block_bytes;
  uint64_t window = Fitting(needs.window_wanted - needs.window_least, room / 2, bytes);
  room -= window * bytes;
  window += needs.window_least;
  if (window == needs.window_wanted) {
    const uint64_t cached =
        Fitting(needs.window_most - window, room, bytes == 0 ? 0 : bytes + plan.block_bytes);
    room -= cached * bytes;
    window += cached;
  }
  capacity.num_window_blocks = static_cast<uint32_t>(window);
  capacity.num_blocks = static_cast<uint32_t>(
      needs.blocks_least + Fitting(needs.blocks_most - needs.blocks_least, room, plan.block_bytes));
  return capacity;
}

absl::Status DoesNotFit(const MemoryRequest& request, const MemoryPlan& plan,
                        uint64_t one_sequence) {
  const uint64_t needed = plan.total_bytes() + one_sequence;
  return absl::ResourceExhaustedError(absl::StrCat(
      "rank ", request.layout->rank, " needs ", FormatByteSize(needed), " (",
      FormatByteSize(plan.weight_bytes), " weights, ", FormatByteSize(one_sequence),
      " KV cache for one sequence of ", ContextTokens(*request.spec, request.limits), " tokens, ",
      plan.state_bytes == 0 ? ""
                            : absl::StrCat(FormatByteSize(plan.state_bytes), " states of ",
                                           request.limits.max_sequences, " sequences, "),
      FormatByteSize(plan.activation_bytes + plan.exchange_bytes),
      " workspaces and exchange buffers), ", FormatByteSize(needed - request.memory_bytes),
      " more than the ", FormatByteSize(request.memory_bytes), " it may use"));
}

}  // namespace

uint64_t PackedBytes(const WeightSlice& slice, DType stored, bool fp32) {
  const WeightRole role = slice.binding.role;
  if (IsVector(role)) return slice.rows.size() * slice.cols.size() * kFloatBytes;
  // Which matrices are quantised where no checkpoint was seen.
  const bool outer = role == WeightRole::kEmbedding || role == WeightRole::kHead;
  const bool plain =
      OnlyExperts(stored) ? slice.binding.expert < 0 : stored == DType::kF8E4M3 && outer;
  if (fp32 || IsHeldAsFloat32(role)) {
    stored = DType::kF32;
  } else if (!slice.binding.stored.has_value() && plain) {
    stored = DType::kBF16;
  } else if (IsHeldUnquantised(slice.binding) &&
             (InfoOf(stored).block_elements > 1 || stored == DType::kF8E4M3)) {
    stored = DType::kBF16;
  }
  return RoundUp(slice.rows.size(), kTileRows) * PackedRowBytes(stored, slice.cols);
}

uint64_t WeightBytes(const std::vector<WeightSlice>& slices, DType stored, bool fp32) {
  uint64_t bytes = 0;
  for (const WeightSlice& slice : slices) {
    bytes += RoundUp(PackedBytes(slice, slice.binding.stored.value_or(stored), fp32), kAlignment);
  }
  return bytes;
}

uint64_t KvBytesPerToken(const RankLayout& layout, const ModelSpec& spec, KvType type) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < layout.per_layer.size(); ++i) {
    const AttentionSpec& attention = spec.layers[layout.layers.begin + i].attention;
    bytes += KvTokenBytesOf(attention, layout.per_layer[i], type).total();
  }
  return bytes;
}

uint64_t StateBytesPerSequence(const RankLayout& layout, const ModelSpec& spec) {
  uint64_t floats = 0;
  for (size_t i = 0; i < layout.per_layer.size(); ++i) {
    floats +=
        StateFloatsPerSequence(spec.layers[layout.layers.begin + i].attention, layout.per_layer[i]);
  }
  return floats * kFloatBytes;
}

uint64_t StepBufferBytes(const RankLayout& layout, const ModelSpec& spec,
                         const ServingLimits& limits) {
  const ScratchWidths widths = ScratchWidthsOf(spec, layout);
  // Per token: residual, normalised input and output of a sub-layer; query, key, value, attention;
  // router; shared expert.
  const uint64_t per_token = 3 * spec.hidden_size + widths.attention.total() + widths.experts +
                             2 * widths.top_k + widths.shared;
  const uint64_t rope_tables = uint64_t{ContextTokens(spec, limits)} * RotationWidth(spec, layout);
  return (limits.max_step_tokens * per_token + rope_tables) * kFloatBytes +
         HeadBytes(spec, layout) + HistoryBytes(spec, layout, limits) +
         ExpertExchangeBytes(ExchangeSizesOf(layout, spec, limits), spec);
}

uint64_t ActivationBytes(const RankLayout& layout, const ModelSpec& spec,
                         const ServingLimits& limits) {
  const ScratchWidths widths = ScratchWidthsOf(spec, layout);
  // One call at a time has the kernels' workspace.
  const uint64_t ffn_rows =
      std::max<uint64_t>(limits.max_step_tokens, ExchangeSizesOf(layout, spec, limits).rows);
  const uint64_t kernels =
      std::max({FfnWorkspace(widths.top_k, spec.hidden_size, WidestFfn(layout), ffn_rows),
                LinearWorkspace(spec.hidden_size, widths.attention, limits),
                AttentionWorkspace(layout, spec, limits), IndexWorkspace(layout, spec, limits)});
  return StepBufferBytes(layout, spec, limits) + kernels + kSmallPieces;
}

uint64_t ExchangeBytes(const RankLayout& layout, const ModelSpec& spec,
                       const ServingLimits& limits) {
  const uint64_t activations = uint64_t{limits.max_step_tokens} * spec.hidden_size * kFloatBytes;
  const uint64_t logits = kGatheredRows * WidestVocabularySlice(spec, layout) * kFloatBytes;
  const uint64_t expert_rows = ExpertExchangeSizesOf(spec, layout, limits.max_step_tokens).rows *
                               spec.hidden_size * kFloatBytes;
  const uint64_t payload = std::max({activations, logits, expert_rows, kChoicePayload});
  const bool one_group = layout.group_ranks.size() == layout.stage_ranks.size();
  return ExchangeBytesOfGroup(layout.tp_ranks.size(), payload) +
         ExchangeBytesOfGroup(layout.group_ranks.size(), payload) +
         (one_group ? 0 : ExchangeBytesOfGroup(layout.stage_ranks.size(), payload)) +
         ExchangeBytesOfGroup(NumStages(layout), payload);
}

uint64_t LeastBytes(const MemoryRequest& request) {
  const MemoryPlan plan = FixedPart(request);
  return plan.total_bytes() + LeastKvBytes(plan, BlockNeedsOf(request));
}

absl::StatusOr<MemoryPlan> PlanMemory(const MemoryRequest& request) {
  const ServingLimits& limits = request.limits;
  if (limits.block_tokens == 0 || limits.max_step_tokens == 0 || limits.max_sequences == 0) {
    return absl::InvalidArgumentError(
        "block_tokens, max_step_tokens and max_sequences must be above 0");
  }
  MemoryPlan plan = FixedPart(request);
  const uint64_t fixed = plan.total_bytes();
  const BlockNeeds needs = BlockNeedsOf(request);
  const uint64_t one_sequence = LeastKvBytes(plan, needs);
  if (fixed + one_sequence > request.memory_bytes) return DoesNotFit(request, plan, one_sequence);
  LimitTo(Divide(request, plan, needs, request.memory_bytes - fixed), *request.layout,
          *request.spec, plan);
  return plan;
}

void LimitTo(const KvCapacity& capacity, const RankLayout& layout, const ModelSpec& spec,
             MemoryPlan& plan) {
  plan.capacity = capacity;
  plan.kv_bytes =
      capacity.num_blocks * plan.block_bytes + capacity.num_window_blocks * plan.window_block_bytes;
  plan.snapshot_bytes = capacity.num_snapshots * StateBytesPerSequence(layout, spec);
}

}  // namespace essor::model
