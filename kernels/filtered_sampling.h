// Draws after filters, from a whole row or from what the slices of a vocabulary say of it. On the
// softmax of logits / temperature, each filter over what the one before left (the order of Hugging
// Face's generation):
//   top-k    the k largest; of equal ones the lower ids
//   top-p    the smallest set, largest first, whose probability reaches top_p; at least one
//   min-p    those at least min_p times as probable as the most probable
//   typical  the smallest set, those first whose -log p is nearest to the entropy, whose
//   probability
//            reaches typical_p (Meister, Pimentel, Wiher, Cotterell: "Locally Typical Sampling",
//            TACL 2023); of equally near ones the more probable, then the lower ids
// The draw is LocalBest's (kernels/sampling.h), over the survivors. NaN logits count as impossible.
//
// Split over ranks: all learn the row's best score (LocalBest with temperature 0, MergeBest); each
// gives its sums over its slice and its best tokens (LocalTop); DrawFiltered decides from the
// merged ones. Sums are of integers, so their order does not matter: every split gives the token
// that the whole row would, or says that the best tokens do not suffice to know it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "kernels/sampling.h"
#include "kernels/stream.h"

namespace essor::kernels {

// Sums over tokens of weight = e^(score - max) and of weight * (max - score), each term in units of
// 2^-40, rounded down. For at most 2^23 tokens.
struct FilterSums {
  uint64_t mass = 0;
  uint64_t spread = 0;  // 0 unless typical sampling needs it
};

// Sums of one row's slice.
struct RowSums {
  uint32_t row = 0;            // of the logits
  float temperature = 1;       // scores are logits / temperature
  float max = 0;               // the best score of the whole row; finite
  bool spread = false;         // whether that is wanted too
  FilterSums* sums = nullptr;  // where they go
};
struct LocalFilterSumsParams {
  const float* logits;  // [.., width]
  uint32_t width;
  std::span<const RowSums> rows;
};
void LocalFilterSums(const LocalFilterSumsParams& params, Stream& stream);

// Whether DrawFiltered needs the sums of the whole row.
bool NeedsFilterSums(const RowSampling& sampling);

// What is known of a row.
struct FilterRow {
  std::span<Candidate> best{};  // the row's best tokens by score, in any order; will be reordered
  bool all = false;             // no other token is possible
  float max = 0;                // the best score
  FilterSums sums{};            // of the whole row, where NeedsFilterSums()
};

// The token drawn, or nothing where a filter may leave tokens beyond `best` (never when `all`).
std::optional<uint32_t> DrawFiltered(FilterRow row, const RowSampling& sampling);

// The same from a whole row; one whose best score is not finite gives 0. `scratch` has at least as
// many elements as `logits`; nothing is allocated.
uint32_t SampleFiltered(std::span<const float> logits, const RowSampling& sampling,
                        std::span<Candidate> scratch);
// With scratch memory of its own.
uint32_t SampleFiltered(std::span<const float> logits, const RowSampling& sampling);

}  // namespace essor::kernels
