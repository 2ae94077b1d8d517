// Chooses tokens from logits whose vocabulary is split over the ranks of a stage.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "kernels/filtered_sampling.h"
#include "worker/engine/head_slice.h"
#include "worker/engine/whole_rows.h"

namespace essor::worker {

// The token does not depend on the split (kernels/sampling.h, kernels/filtered_sampling.h). Owned
// and called by the rank's engine thread; all ranks of the stage make the same calls.
class TokenChooser {
 public:
  // What a rank tells of a filtered row; more of it is asked for where that does not suffice.
  static constexpr uint32_t kCandidates = kernels::kMaxTop;

  // Borrowed. `candidates` (at most kCandidates, equal on all ranks) is smaller in tests only.
  TokenChooser(const HeadSlice* slice, WholeRows* whole_rows, uint32_t vocab_size,
               uint32_t candidates = kCandidates);

  // For each of `rows` with `sample`, from the row of `logits` [rows, slice] with the same index;
  // kNoToken where the best logit is not finite. Errors are those of the exchange.
  absl::Status Choose(const float* logits, std::span<const HeadRow> rows,
                      std::span<HeadResult> results);

  // Bytes of the largest exchange for `max_rows` rows, but for those of WholeRows.
  static uint64_t MaxExchangeBytes(uint32_t max_rows);
  // Filtered rows that could not be decided without their whole logits.
  uint64_t num_whole_rows() const { return num_whole_rows_; }

 private:
  absl::Status ChooseBest(const float* logits, std::span<const HeadRow> rows,
                          std::span<HeadResult> results);
  absl::Status ChooseFiltered(const float* logits, std::span<const HeadRow> rows,
                              std::span<HeadResult> results);
  absl::Status ChooseFromWholeRows(const float* logits, std::span<const HeadRow> rows,
                                   std::span<const uint32_t> wanted, std::span<HeadResult> results);
  void ComputeCandidates(const float* logits, std::span<const HeadRow> rows,
                         std::span<const uint32_t> filtered);
  // The token of filtered row number `index` from what all ranks told; false if that is too little.
  bool Decide(size_t index, size_t num_filtered, const HeadRow& row, float best_logit,
              HeadResult* result);

  const HeadSlice& slice_;
  WholeRows& whole_rows_;
  const uint32_t candidates_;
  uint64_t num_whole_rows_ = 0;
  // Of the call under way.
  std::vector<float> best_logits_;  // [rows], where known
  std::vector<kernels::FilterSums> sums_;
  std::vector<kernels::FilterSums> all_sums_;
  std::vector<kernels::Candidate> best_;
  std::vector<kernels::Candidate> all_best_;
  std::vector<kernels::Candidate> merged_;
  std::vector<kernels::Candidate> scratch_;  // [vocabulary]
};

}  // namespace essor::worker
