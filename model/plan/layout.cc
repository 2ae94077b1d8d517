#include <algorithm>
#include <numeric>
#include <variant>

#include "common/check.h"
#include "model/plan/parallel_plan.h"
#include "model/plan/stage_split.h"
#include "model/plan/weight_slices.h"
#include "model/spec/logical_weights.h"

namespace essor::model {
namespace {

// Which parts are one longer when `total` does not divide evenly.
enum class Longer { kLowerParts, kHigherParts };

Range SplitEvenly(uint64_t total, uint64_t parts, uint64_t index, Longer longer) {
  const uint64_t size = total / parts;
  const uint64_t rest = total % parts;
  const uint64_t before = longer == Longer::kLowerParts
                              ? std::min(index, rest)
                              : (index + rest > parts ? index + rest - parts : 0);
  const bool one_more = longer == Longer::kLowerParts ? index < rest : index + rest >= parts;
  const uint64_t begin = index * size + before;
  return {begin, begin + size + (one_more ? 1 : 0)};
}

// Cuts [0, total) at multiples of `granule`; the last piece may be shorter.
Range SplitInPieces(uint64_t total, uint64_t granule, uint64_t parts, uint64_t index,
                    Longer longer) {
  const Range pieces = SplitEvenly((total + granule - 1) / granule, parts, index, longer);
  return {std::min(pieces.begin * granule, total), std::min(pieces.end * granule, total)};
}

Range SplitVocabulary(uint64_t vocab_size, uint64_t parts, uint64_t index) {
  uint64_t granule = 64;
  while (granule > 1 && (vocab_size + granule - 1) / granule < parts) granule /= 2;
  return SplitInPieces(vocab_size, granule, parts, index, Longer::kLowerParts);
}

void SplitAttention(const GroupedQueryAttention& attention, uint32_t tp, uint32_t index,
                    RankLayout::Layer& layer) {
  const uint64_t group = attention.num_heads / attention.num_kv_heads;
  if (tp <= attention.num_kv_heads) {
    layer.kv_heads = SplitEvenly(attention.num_kv_heads, tp, index, Longer::kLowerParts);
    layer.heads = {layer.kv_heads.begin * group, layer.kv_heads.end * group};
    return;
  }
  uint64_t kv_head = 0;
  Range sharing;  // the ranks that share it
  do {
    sharing = SplitEvenly(tp, attention.num_kv_heads, kv_head++, Longer::kLowerParts);
  } while (index >= sharing.end);
  --kv_head;
  const Range part = SplitEvenly(group, sharing.size(), index - sharing.begin, Longer::kLowerParts);
  layer.kv_heads = {kv_head, kv_head + 1};
  layer.heads = {kv_head * group + part.begin, kv_head * group + part.end};
}

void SplitAttention(const LatentAttention& attention, uint32_t tp, uint32_t index,
                    RankLayout::Layer& layer) {
  layer.heads = SplitEvenly(attention.num_heads, tp, index, Longer::kLowerParts);
  layer.kv_heads = {0, 1};
}

void SplitAttention(const LightningAttention& attention, uint32_t tp, uint32_t index,
                    RankLayout::Layer& layer) {
  layer.heads = SplitEvenly(attention.num_heads, tp, index, Longer::kLowerParts);
}

void SplitAttention(const GatedDeltaNet& attention, uint32_t tp, uint32_t index,
                    RankLayout::Layer& layer) {
  const Range keys = SplitEvenly(attention.num_key_heads, tp, index, Longer::kLowerParts);
  const uint64_t group = attention.values_per_key();
  layer.heads = {keys.begin * group, keys.end * group};
}

// Matrices whose rows are divided over the ranks of a group.
bool IsOverGroup(WeightRole role) {
  return role == WeightRole::kEmbedding || role == WeightRole::kHead;
}

// Parameters that the ranks of one stage hold of a layer, replicas counted (those of KV heads
// aside).
uint64_t LayerCost(const ParallelPlan& plan, const ModelSpec& spec, uint32_t layer) {
  const uint64_t ranks = plan.RanksPerStage();
  const auto* moe = std::get_if<MoeFfn>(&spec.LayerAt(layer).ffn);
  uint64_t cost = 0;
  for (const WeightBinding& weight : LayerWeights(spec, layer, /*max_experts=*/1)) {
    const uint64_t elements = weight.rows * weight.cols;
    if (weight.expert >= 0) {
      cost += elements * moe->num_experts;
    } else if (IsReplicated(weight.role) || weight.rows == 1) {
      cost += elements * ranks;
    } else if (IsOverGroup(weight.role) || (moe != nullptr && IsFfnMatrix(weight.role))) {
      cost += elements * plan.dp;  // also of the shared expert
    } else {
      cost += elements * (ranks / plan.tp);
    }
  }
  return cost;
}

std::vector<uint32_t> StageStarts(const ParallelPlan& plan, const ModelSpec& spec) {
  const auto num_layers = static_cast<uint32_t>(spec.layers.size());
  if (plan.pp == 1) return {0, num_layers};
  std::vector<uint64_t> costs(num_layers);
  for (uint32_t layer = 0; layer < num_layers; ++layer) {
    costs[layer] = LayerCost(plan, spec, layer);
  }
  // Tied, the matrix is embedding on the first stage and head on the last.
  const uint64_t embedding = uint64_t{spec.vocab_size} * spec.hidden_size * plan.dp;
  uint64_t drafts = 0;
  for (uint32_t layer = num_layers; layer < spec.NumLayersHeld(); ++layer) {
    drafts += LayerCost(plan, spec, layer);
  }
  return SplitStages({.layers = costs, .first_stage = embedding, .last_stage = embedding + drafts},
                     plan.pp);
}

// What the rank of `layout`, whose place in its stage is known, has of a layer.
RankLayout::Layer SplitLayer(const ParallelPlan& plan, const LayerSpec& parts,
                             const RankLayout& layout, QuantBlock quant_block) {
  // Neighbouring ranks share an expert: they are the most likely to share a node.
  const uint32_t ranks = plan.RanksPerStage();
  const uint32_t slices = ranks / plan.ep;
  const uint32_t expert_group = layout.rank_in_stage / slices;
  const uint32_t slice = layout.rank_in_stage % slices;
  RankLayout::Layer layer;
  std::visit(
      [&](const auto& attention) { SplitAttention(attention, plan.tp, layout.tp_index, layer); },
      parts.attention);
  if (const auto* moe = std::get_if<MoeFfn>(&parts.ffn)) {
    layer.experts = ExpertsOfPart(moe->num_experts, plan.ep, expert_group);
    layer.expert_ffn = SplitInPieces(moe->intermediate_size, quant_block.experts, slices, slice,
                                     Longer::kHigherParts);
    layer.ffn = SplitInPieces(moe->shared_intermediate_size, quant_block.others,
                              plan.RanksPerGroup(), layout.group_index, Longer::kLowerParts);
  } else {
    layer.ffn = SplitInPieces(std::get<DenseFfn>(parts.ffn).intermediate_size, quant_block.others,
                              plan.tp, layout.tp_index, Longer::kHigherParts);
  }
  return layer;
}

RankLayout LayoutWithin(const ParallelPlan& plan, const ModelSpec& spec,
                        const std::vector<uint32_t>& stage_starts, uint32_t rank,
                        QuantBlock quant_block) {
  const uint32_t ranks = plan.RanksPerStage();
  RankLayout layout;
  layout.rank = rank;
  layout.stage = rank / ranks;
  layout.rank_in_stage = rank % ranks;
  layout.first_stage = layout.stage == 0;
  layout.last_stage = layout.stage + 1 == plan.pp;
  layout.layers = {stage_starts[layout.stage], stage_starts[layout.stage + 1]};
  const uint32_t stage_begin = layout.stage * ranks;
  layout.stage_ranks.resize(ranks);
  std::iota(layout.stage_ranks.begin(), layout.stage_ranks.end(), stage_begin);
  layout.expert_parts = plan.ep;
  const uint32_t group = plan.RanksPerGroup();
  layout.dp_index = layout.rank_in_stage / group;
  layout.group_index = layout.rank_in_stage % group;
  layout.group_ranks.resize(group);
  std::iota(layout.group_ranks.begin(), layout.group_ranks.end(), rank - layout.group_index);
  layout.vocab = SplitVocabulary(spec.vocab_size, group, layout.group_index);
  layout.tp_index = layout.rank_in_stage % plan.tp;
  layout.tp_ranks.resize(plan.tp);
  std::iota(layout.tp_ranks.begin(), layout.tp_ranks.end(), rank - layout.tp_index);
  if (!layout.last_stage) layout.next_stage_rank = rank + ranks;
  if (!layout.first_stage) layout.previous_stage_rank = rank - ranks;
  layout.first_stage_rank = layout.rank_in_stage;
  layout.last_stage_rank = (plan.pp - 1) * ranks + layout.rank_in_stage;

  for (uint64_t index = layout.layers.begin; index < layout.layers.end; ++index) {
    layout.per_layer.push_back(SplitLayer(plan, spec.layers[index], layout, quant_block));
  }
  if (!layout.last_stage) return layout;
  for (const LayerSpec& draft : spec.draft_layers) {
    layout.per_draft_layer.push_back(SplitLayer(plan, draft, layout, quant_block));
  }
  return layout;
}

}  // namespace

bool OnlyExperts(DType stored) { return stored == DType::kF4E2M1 || stored == DType::kOffsetI4; }

QuantBlock QuantBlockOf(DType stored) {
  const uint32_t block = InfoOf(stored).block_elements > 1 ? 32 : 1;
  return {block, OnlyExperts(stored) ? 1 : block};
}

QuantBlock QuantBlockOf(const std::vector<WeightBinding>& bindings) {
  QuantBlock block;
  for (const WeightBinding& binding : bindings) {
    const bool cut = binding.role == WeightRole::kDown || binding.role == WeightRole::kOutput;
    if (!cut || !binding.stored.has_value()) continue;
    const uint32_t of_type = InfoOf(*binding.stored).block_elements > 1 ? 32 : 1;
    uint32_t& of_group = binding.expert >= 0 ? block.experts : block.others;
    of_group = std::max(of_group, of_type);
  }
  return block;
}

Range ExpertsOfPart(uint64_t num_experts, uint32_t parts, uint32_t part) {
  return SplitEvenly(num_experts, parts, part, Longer::kHigherParts);
}

RankLayout LayoutOf(const ParallelPlan& plan, const ModelSpec& spec, uint32_t rank,
                    QuantBlock quant_block) {
  ESSOR_CHECK(rank < plan.NumRanks());
  return LayoutWithin(plan, spec, StageStarts(plan, spec), rank, quant_block);
}

std::vector<RankLayout> LayoutsOf(const ParallelPlan& plan, const ModelSpec& spec,
                                  QuantBlock quant_block) {
  const std::vector<uint32_t> stage_starts = StageStarts(plan, spec);
  std::vector<RankLayout> layouts;
  for (uint32_t rank = 0; rank < plan.NumRanks(); ++rank) {
    layouts.push_back(LayoutWithin(plan, spec, stage_starts, rank, quant_block));
  }
  return layouts;
}

}  // namespace essor::model
