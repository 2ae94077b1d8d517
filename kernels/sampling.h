// Choosing tokens, split over ranks that each hold a slice of the vocabulary. Per row:
//   greedy or plain temperature: LocalBest on each rank's slice, exchange, MergeBest;
//   filters (top-k, top-p, min-p, typical): see kernels/filtered_sampling.h.
// Random numbers are counter-based: keyed by (seed, position, token id), so a draw depends on
// nothing else (kernels/gumbel.h). Temperature sampling is the Gumbel-max trick: argmax over ids of
// logit / temperature + gumbel(seed, position, id), which is a draw from the softmax and can be
// taken slice by slice: any split of the vocabulary gives the same token.
#pragma once

#include <cstddef>
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
  uint64_t position;    // of the token being drawn
  float typical_p = 1;  // 1 = off
  // Whether candidates must be filtered over the whole vocabulary first.
  bool Filtered() const {
    return temperature > 0 && (top_p < 1 || top_k > 0 || min_p > 0 || typical_p < 1);
  }
};

struct Candidate {
  float score;  // what tokens are compared by: a logit, scaled or perturbed
  uint32_t id;
};

// A strict total order on candidates without NaN: the better first; of equal ones the lower id.
inline bool Better(const Candidate& a, const Candidate& b) {
  return a.score != b.score ? a.score > b.score : a.id < b.id;
}

// The best candidate of a slice: row i of `logits` holds ids first_id .. first_id + width - 1.
// Scores are logits when greedy, perturbed ones otherwise. Ties: the lower id. NaN logits never
// win; a row of only NaN gives score -infinity and first_id. Filters are not applied.
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

// The best tokens of one row's slice.
struct RowTop {
  uint32_t row = 0;           // of the logits
  float temperature = 1;      // scores are logits / temperature
  uint32_t count = 0;         // at most kMaxTop
  Candidate* best = nullptr;  // [count], best first; after the possible ones {-infinity, 0}
};
inline constexpr uint32_t kMaxTop = 256;

// Neither NaN nor minus infinity is possible.
struct LocalTopParams {
  const float* logits;  // [.., width]
  uint32_t width;
  uint32_t first_id;
  std::span<const RowTop> rows;
};
void LocalTop(const LocalTopParams& params, Stream& stream);

// The best of what slices sent, best first, at the front of `candidates`, which it reorders; at
// most `count` of them, none of score -infinity. Returns how many.
size_t MergeTop(std::span<Candidate> candidates, size_t count);

// The `count` best tokens of `logits` (ids from first_id on) by logit / temperature, in any order,
// at the front of `scratch`, which has room for min(logits.size(), max(2 * count, 256)); returns
// how many there are. On the calling thread.
size_t CollectBest(std::span<const float> logits, uint32_t first_id, float temperature,
                   size_t count, std::span<Candidate> scratch);

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
