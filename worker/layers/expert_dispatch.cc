#include "worker/layers/expert_dispatch.h"

#include <algorithm>
#include <numeric>

#include "common/check.h"

namespace essor::worker {
namespace {

std::span<const uint32_t> ChoicesOf(const ExpertChoices& choices, uint32_t rank, uint32_t row) {
  const size_t place = size_t{rank} * choices.rows_max + row;
  return {choices.ids + place * choices.top_k, choices.top_k};
}

uint32_t EndOf(const ExpertChoices& choices, DispatchRound round, uint32_t rank) {
  return std::min(round.end, choices.num_rows[rank]);
}

// How many of a row's choices are in `part`.
uint32_t CountIn(const ExpertHolders& holders, std::span<const uint32_t> ids, uint32_t part) {
  return static_cast<uint32_t>(std::count_if(
      ids.begin(), ids.end(), [&](uint32_t id) { return holders.part_of_expert[id] == part; }));
}

// Rows that this rank sends, to all slices of the parts that they have experts in.
void PlanSending(const ExpertHolders& holders, const ExpertChoices& choices, DispatchRound round,
                 uint32_t rank, Dispatch* dispatch) {
  const uint32_t end = EndOf(choices, round, rank);
  for (uint32_t to = 0; to < holders.num_ranks; ++to) {
    const size_t before = dispatch->sent_rows.size();
    for (uint32_t row = round.begin; row < end; ++row) {
      if (CountIn(holders, ChoicesOf(choices, rank, row), to / holders.num_slices) > 0) {
        dispatch->sent_rows.push_back(row - round.begin);
      }
    }
    dispatch->sent_per_rank[to] = dispatch->sent_rows.size() - before;
  }
}

void PlanComputing(const ExpertHolders& holders, const ExpertChoices& choices, DispatchRound round,
                   uint32_t rank, Dispatch* dispatch) {
  const uint32_t part = rank / holders.num_slices;
  for (uint32_t from = 0; from < holders.num_ranks; ++from) {
    const uint32_t end = EndOf(choices, round, from);
    for (uint32_t row = round.begin; row < end; ++row) {
      const uint32_t here = CountIn(holders, ChoicesOf(choices, from, row), part);
      if (here == 0) continue;
      dispatch->received_rows.push_back(from * choices.rows_max + row);
      ++dispatch->received_per_rank[from];
      dispatch->computed_per_rank[from] += here;
    }
  }
}

void PlanReturning(const ExpertHolders& holders, const ExpertChoices& choices, DispatchRound round,
                   uint32_t rank, Dispatch* dispatch) {
  const uint32_t end = EndOf(choices, round, rank);
  const auto for_each_output = [&](const auto& body) {
    for (uint32_t row = round.begin; row < end; ++row) {
      for (const uint32_t id : ChoicesOf(choices, rank, row)) {
        const uint32_t first = holders.part_of_expert[id] * holders.num_slices;
        for (uint32_t slice = 0; slice < holders.num_slices; ++slice) body(first + slice);
      }
    }
  };
  for_each_output([&](uint32_t holder) { ++dispatch->returned_per_rank[holder]; });
  std::vector<uint64_t> next(holders.num_ranks);
  std::exclusive_scan(dispatch->returned_per_rank.begin(), dispatch->returned_per_rank.end(),
                      next.begin(), uint64_t{0});
  for_each_output([&](uint32_t holder) {
    dispatch->returned_rows.push_back(static_cast<uint32_t>(next[holder]++));
  });
}

}  // namespace

ExpertHolders ExpertHolders::Of(const model::RankLayout& layout, uint32_t num_experts) {
  ExpertHolders holders;
  holders.num_ranks = static_cast<uint32_t>(layout.stage_ranks.size());
  holders.num_slices = holders.num_ranks / layout.expert_parts;
  for (uint32_t part = 0; part < layout.expert_parts; ++part) {
    const model::Range experts = model::ExpertsOfPart(num_experts, layout.expert_parts, part);
    holders.part_of_expert.insert(holders.part_of_expert.end(), experts.size(), part);
  }
  return holders;
}

std::vector<DispatchRound> PlanRounds(const ExpertHolders& holders, const ExpertChoices& choices,
                                      uint64_t rows_max) {
  ESSOR_CHECK(rows_max >= uint64_t{holders.num_ranks} * choices.top_k);
  const uint32_t num_rows = *std::max_element(choices.num_rows.begin(), choices.num_rows.end());
  const uint64_t returned_per_row = uint64_t{choices.top_k} * holders.num_slices;
  const size_t num_parts = holders.num_ranks / holders.num_slices;
  std::vector<uint64_t> computed(num_parts);  // in the round so far
  std::vector<uint64_t> added(num_parts);     // with one more row of each rank
  std::vector<DispatchRound> rounds(1);
  for (uint32_t row = 0; row < num_rows; ++row) {
    std::fill(added.begin(), added.end(), 0);
    for (uint32_t rank = 0; rank < holders.num_ranks; ++rank) {
      if (row >= choices.num_rows[rank]) continue;
      for (const uint32_t id : ChoicesOf(choices, rank, row)) ++added[holders.part_of_expert[id]];
    }
    bool fits = (row + 1 - rounds.back().begin) * returned_per_row <= rows_max;
    for (size_t part = 0; part < num_parts; ++part) {
      fits = fits && computed[part] + added[part] <= rows_max;
    }
    if (!fits) {
      rounds.push_back({.begin = row, .end = row});
      std::fill(computed.begin(), computed.end(), 0);
    }
    for (size_t part = 0; part < num_parts; ++part) computed[part] += added[part];
    rounds.back().end = row + 1;
  }
  return rounds;
}

void PlanDispatch(const ExpertHolders& holders, const ExpertChoices& choices, DispatchRound round,
                  uint32_t rank, Dispatch* dispatch) {
  dispatch->sent_rows.clear();
  dispatch->received_rows.clear();
  dispatch->returned_rows.clear();
  dispatch->sent_per_rank.assign(holders.num_ranks, 0);
  dispatch->received_per_rank.assign(holders.num_ranks, 0);
  dispatch->computed_per_rank.assign(holders.num_ranks, 0);
  dispatch->returned_per_rank.assign(holders.num_ranks, 0);
  PlanSending(holders, choices, round, rank, dispatch);
  PlanComputing(holders, choices, round, rank, dispatch);
  PlanReturning(holders, choices, round, rank, dispatch);
}

}  // namespace essor::worker
