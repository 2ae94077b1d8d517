// Choosing tokens, split over ranks that each hold a slice of the vocabulary. Per row:
//   greedy or plain temperature: LocalBest on each rank's slice, exchange, MergeBest;
//   top-k / top-p / min-p: gather the row's logits, SampleFiltered on all of it.
// Random numbers are counter-based: keyed by (seed, position, token id), so a draw depends on
// nothing else (kernels/gumbel.h). Temperature sampling is the Gumbel-max trick: argmax over ids of
// logit / temperature + gumbel(seed, position, id), which is a draw from the softmax and can be
// taken slice by slice: any split of the vocabulary gives the same token.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/stream.h"

namespace essor::kernels {

struct RowSampling {
  float temperature;  // 0 = greedy
  float top_p;        // 1 = off
  int32_t top_k;      // 0 = off
  float min_p;        // 0 = off
  uint64_t seed;
  uint64_t position;  // of the token being drawn
  // Whether candidates must be filtered over the whole vocabulary first.
  bool Filtered() const { return temperature > 0 && (top_p < 1 || top_k > 0 || min_p > 0); }
};

struct Candidate {
  float score;  // logit when greedy, perturbed logit otherwise
  uint32_t id;
};

// The best candidate of a slice: row i of `logits` holds ids first_id .. first_id + width - 1.
// Ties: the lower id. NaN logits never win; a row of only NaN gives score -infinity and first_id.
// Filters are not applied.
struct LocalBestParams {
  const float* logits;  // [R, width]
  uint32_t num_rows;    // R
  uint32_t width;
  uint32_t first_id;
  const RowSampling* sampling;  // [R]
  Candidate* best;              // [R]
};
void LocalBest(const LocalBestParams& params, Stream& stream);

// The better of the slices' candidates (at least one); the same rule for ties.
Candidate MergeBest(std::span<const Candidate> slices);

// One draw from a whole row after top-k, then top-p, then min-p, each on the softmax of
// logits / temperature over what the one before left:
//   top-k  the k largest; of equal ones the lower ids
//   top-p  the smallest set, largest first, whose probability reaches top_p; at least one
//   min-p  those at least min_p times as probable as the most probable
// The draw is LocalBest's, over the survivors. NaN logits count as impossible; a row of only those
// gives 0. `scratch` has at least as many elements as `logits`; nothing is allocated.
uint32_t SampleFiltered(std::span<const float> logits, const RowSampling& sampling,
                        std::span<Candidate> scratch);
// The same with scratch memory of its own.
uint32_t SampleFiltered(std::span<const float> logits, const RowSampling& sampling);

// Per row: max and sum of exp(logit - max) of a slice, for log-softmax across slices.
struct LogSumExpPart {
  float max;
  float sum;
};
void LocalLogSumExp(const float* logits, uint32_t num_rows, uint32_t width, LogSumExpPart* parts,
                    Stream& stream);
// log(sum exp) of the whole row. The order of the parts matters for the last bits.
float MergeLogSumExp(std::span<const LogSumExpPart> parts);

}  // namespace essor::kernels
