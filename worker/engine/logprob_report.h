// Log-probabilities of scored and sampled tokens and of the most probable ones, from logits whose
// vocabulary is split over the ranks of a stage.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "worker/engine/head_slice.h"

namespace essor::worker {

// Log-softmax of the logits as the model gave them: Prepare() looks at them before anything changes
// them, Finish() tells of the tokens that were chosen meanwhile. Owned and called by the rank's
// engine thread; all ranks of the stage make the same calls.
class LogprobReport {
 public:
  explicit LogprobReport(const HeadSlice* slice) : slice_(*slice) {}

  // `logits`: [rows, slice], unchanged yet. What adjustments will overwrite is kept where it may be
  // asked for.
  void Prepare(const float* logits, std::span<const HeadRow> rows);

  // The same rows, with tokens in `results`; fills token_logprob and target. Errors are those of
  // the exchange.
  absl::Status Finish(const float* logits, std::span<const HeadRow> rows,
                      std::span<HeadResult> results);

  // Bytes of the largest exchange for `max_rows` rows.
  static uint64_t MaxExchangeBytes(uint32_t max_rows);

 private:
  // One token whose log-probability is wanted.
  struct Entry {
    uint32_t row;    // index
    bool of_target;  // else of the sampled token
    uint32_t top;    // also of that many most probable
    kernels::LogSumExpPart sum;
    std::vector<std::pair<uint32_t, float>> originals;  // columns that the adjustment changes
  };
  // What a rank tells of an entry.
  struct Part {
    kernels::LogSumExpPart sum;
    float logit;  // of the token, of the rank whose slice has it; else -infinity
  };

  void AddEntries(std::span<const HeadRow> rows);
  void ComputeTops(const float* logits);
  float LogitOf(const float* logits, const Entry& entry, TokenId token) const;
  TokenLogprob Merge(size_t index, const std::vector<Part>& parts,
                     const std::vector<kernels::Candidate>& tops) const;

  const HeadSlice& slice_;
  // Of the call under way.
  std::vector<Entry> entries_;
  uint32_t widest_top_ = 0;
  std::vector<kernels::Candidate> tops_;  // [entries, widest_top_]
};

}  // namespace essor::worker
