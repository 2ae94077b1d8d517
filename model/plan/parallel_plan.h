// Which rank holds what. A plan is four factors; everything else follows from them and the
// ModelSpec by pure functions, so coordinator and workers compute equal answers.
//
// Per instance: pp stages of R = max(dp x tp, ep) ranks, the larger a multiple of the smaller.
// Attention runs in dp groups of tp ranks, replicated R / (dp x tp) times; experts are spread over
// ep groups, each expert sliced over R / ep ranks. Global rank = stage * R + rank within the stage.
//
// The R / dp consecutive ranks of a stage that run one group's attention and its replicas hold the
// same tokens. They share what follows from tokens alone (vocabulary, dense layers, shared
// experts); only routed experts are spread over the ranks of all groups.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/spec/model_spec.h"

namespace essor::model {

// Of one instance: a bound on what a plan may ask for.
inline constexpr uint32_t kMaxRanks = 4096;

struct ParallelPlan {
  uint32_t pp = 1;
  uint32_t dp = 1;
  uint32_t tp = 1;
  uint32_t ep = 1;

  // "pp=2,tp=2": any non-empty subset, any order, factors >= 1, at most kMaxRanks ranks in all.
  // InvalidArgument names what is wrong.
  static absl::StatusOr<ParallelPlan> Parse(const std::string& text);
  // Every factor: "pp=2,dp=1,tp=2,ep=1".
  std::string ToString() const;

  uint32_t RanksPerStage() const;
  // R / dp.
  uint32_t RanksPerGroup() const { return RanksPerStage() / dp; }
  uint32_t NumRanks() const { return pp * RanksPerStage(); }
  // Steps that the coordinator may have sent without having their results: one for each stage, and
  // one to go on with.
  uint32_t StepsInFlightMax() const { return pp + 1; }

  bool operator==(const ParallelPlan&) const = default;
};

// Granularity at which columns may be cut: the length of the blocks that share a scale in the
// kernels' packed formats, 1 for plain types and for e4m3, whose blocks may be cut anywhere.
struct QuantBlock {
  constexpr QuantBlock(
      uint32_t of_all = 1)  // NOLINT(google-explicit-constructor): nearly always one
      : experts(of_all), others(of_all) {}
  constexpr QuantBlock(uint32_t of_experts, uint32_t of_others)
      : experts(of_experts), others(of_others) {}

  uint32_t experts;  // routed ones
  uint32_t others;
  bool operator==(const QuantBlock&) const = default;
};

// Whether a checkpoint stored so holds its routed experts so, and everything else in plain types:
// f4_e2m1, i4.
bool OnlyExperts(DType stored);
// When the matrices are stored as `stored`.
QuantBlock QuantBlockOf(DType stored);
// Of an opened checkpoint, whose matrices may be of several types: those that plans cut by columns
// (output projections, down matrices) decide.
QuantBlock QuantBlockOf(const std::vector<WeightBinding>& bindings);

// OK, or InvalidArgument with one sentence why `plan` cannot serve `spec`: for example
// "tp=16 exceeds the model's 9 attention heads" or "pp=40 exceeds the model's 30 layers".
// `quant_block` is the one that LayoutOf will be given.
absl::Status ValidatePlan(const ParallelPlan& plan, const ModelSpec& spec,
                          QuantBlock quant_block = 1);

// A half-open range.
struct Range {
  uint64_t begin = 0;
  uint64_t end = 0;
  uint64_t size() const { return end - begin; }
  bool operator==(const Range&) const = default;
};

// What one rank computes. All ranges are in the whole model's numbering.
struct RankLayout {
  uint32_t rank = 0;
  uint32_t stage = 0;
  uint32_t rank_in_stage = 0;
  bool first_stage = false;
  bool last_stage = false;

  Range layers;
  // Rows of embedding and head, split over the ranks of a group; the same on every stage.
  Range vocab;

  // Tensor-parallel group of attention and dense FFN layers, as global ranks in order; this rank is
  // tp_ranks[tp_index]. Replicas have groups of their own.
  std::vector<uint32_t> tp_ranks;
  uint32_t tp_index = 0;
  // Data-parallel group, 0 .. dp - 1, and its ranks in this stage, in order; this rank is
  // group_ranks[group_index]. They hold the same tokens: they share embedding, head and shared
  // experts and merge samples.
  uint32_t dp_index = 0;
  std::vector<uint32_t> group_ranks;
  uint32_t group_index = 0;
  // All ranks of the stage, in order: those that share the routed experts. The same as group_ranks
  // where dp is 1.
  std::vector<uint32_t> stage_ranks;
  // Parts that the routed experts are in (ep): part i is on the ranks i * n .. i * n + n - 1 of the
  // stage, n = stage_ranks.size() / expert_parts, each of which has a slice of its experts.
  uint32_t expert_parts = 1;
  // The rank with the same rank_in_stage in the next / previous / first / last stage.
  std::optional<uint32_t> next_stage_rank;
  std::optional<uint32_t> previous_stage_rank;
  uint32_t first_stage_rank = 0;
  uint32_t last_stage_rank = 0;

  // Per layer of `layers`, in order.
  struct Layer {
    Range heads;  // query heads; of a gated delta net value heads
    // KV heads; above the KV-head count ranks share one (replicated). Empty without a KV cache.
    Range kv_heads;
    // Columns of a dense FFN's intermediate (split over tp), or of an MoE layer's shared expert
    // (split over the group; empty on some ranks where it has fewer pieces than they are).
    Range ffn;
    Range experts;     // whole experts this rank takes part in, empty for a dense layer
    Range expert_ffn;  // its columns of each such expert's intermediate
    bool operator==(const Layer&) const = default;
  };
  std::vector<Layer> per_layer;
  // Of the spec's draft layers, which the last stage holds; empty on others.
  std::vector<Layer> per_draft_layer;
};

// `quant_block` is the granularity at which intermediates may be cut (QuantBlockOf). The plan must
// be valid for the spec and the quant_block (ValidatePlan); then no range is empty but those said
// to be.
//
// How things are divided:
//  * Layers: consecutive, at least one a stage, so that the stage with the most weight bytes
//    (embedding, head, draft layers and replicas counted) has as few as possible; among such
//    divisions the one with the most even layer counts, because KV cache goes with layers.
//  * Heads: whole KV groups, one more on the lower ranks where they do not divide evenly; above the
//    KV-head count each rank has one KV head (a copy) and a part of its group's query heads. So on
//    every rank local query head i reads local KV head i / (heads.size() / kv_heads.size()).
//    Latent attention: heads one by one, the latent whole on every rank as its one KV head (its
//    cache and the projections to it do not shrink with tp). Lightning attention: heads one by one,
//    and no KV heads. Gated delta nets: value heads, all of a key head together, and no KV heads.
//  * FFN columns: consecutive multiples of quant_block, one more on the higher ranks. Experts:
//    consecutive, one more on the higher ranks, which by the rule above have the fewer heads.
//  * Vocabulary: multiples of 64 rows (less where there are more ranks than that), one more on the
//    lower ranks.
RankLayout LayoutOf(const ParallelPlan& plan, const ModelSpec& spec, uint32_t rank,
                    QuantBlock quant_block);
// The whole experts of part `part` of `parts`.
Range ExpertsOfPart(uint64_t num_experts, uint32_t parts, uint32_t part);
// Of all ranks: index = rank.
std::vector<RankLayout> LayoutsOf(const ParallelPlan& plan, const ModelSpec& spec,
                                  QuantBlock quant_block);

}  // namespace essor::model
