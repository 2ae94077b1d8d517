// Who sends which rows to whom, where the tokens of a step are spread over data-parallel groups and
// the experts over all ranks of a stage. Decided from every token's choices, which all ranks know,
// so that nothing else has to be agreed on. No exchange happens here.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/plan/parallel_plan.h"

namespace essor::worker {

// Which ranks of a stage have an expert: those of its part, a slice each.
struct ExpertHolders {
  uint32_t num_ranks = 0;   // R, of the stage
  uint32_t num_slices = 0;  // ranks that share an expert
  std::vector<uint32_t> part_of_expert;

  static ExpertHolders Of(const model::RankLayout& layout, uint32_t num_experts);
};

// The experts that all tokens of a step chose.
struct ExpertChoices {
  const uint32_t* ids;                 // [R, rows_max, top_k]; of rank s the first num_rows[s] rows
  uint32_t rows_max;                   // of one rank
  uint32_t top_k;                      // their order is the router's
  std::span<const uint32_t> num_rows;  // [R], each at most rows_max
};

// A half-open range of rows of each rank; of a rank that has fewer, those it has.
struct DispatchRound {
  uint32_t begin = 0;
  uint32_t end = 0;
};

// Consecutive rounds that together are all rows, as long as possible so that in none of them a rank
// computes, or gets back, more than `rows_max` expert outputs (nor, therefore, sends or receives
// more rows). `rows_max` is at least R * top_k, with which a round has a row of each rank at least.
std::vector<DispatchRound> PlanRounds(const ExpertHolders& holders, const ExpertChoices& choices,
                                      uint64_t rows_max);

// One round as one rank sees it.
struct Dispatch {
  // Of this rank's own rows: which (numbered from the round's first) go to which rank, all for rank
  // 0 first, ascending; a row goes once to a rank, whatever number of experts it has there.
  std::vector<uint32_t> sent_rows;
  std::vector<uint64_t> sent_per_rank;  // [R]
  // Of the rows that come, in order of arrival: by rank, then ascending. Row i is row
  // received_rows[i] of ExpertChoices, rank * rows_max + row.
  std::vector<uint32_t> received_rows;
  std::vector<uint64_t> received_per_rank;  // [R]
  // Expert outputs that this rank computes for each rank: for every received row one for each of
  // its choices that is here, in the router's order.
  std::vector<uint64_t> computed_per_rank;  // [R]
  // And those that come back from each rank. returned_rows[(t * top_k + j) * num_slices + s] is
  // where in them slice s of choice j of own row t is.
  std::vector<uint64_t> returned_per_rank;  // [R]
  std::vector<uint32_t> returned_rows;
};

// Storage of `dispatch` is reused. `rank` is the place in the stage.
void PlanDispatch(const ExpertHolders& holders, const ExpertChoices& choices, DispatchRound round,
                  uint32_t rank, Dispatch* dispatch);

}  // namespace essor::worker
