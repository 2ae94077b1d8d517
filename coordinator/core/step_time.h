// How long steps take, learnt from those that were made, and what follows for the next ones.
#pragma once

#include <cstdint>

#include "absl/time/time.h"

namespace essor::coordinator {

// time = base + per_decode * decode rows + per_prefill * prefill rows. The first two come from
// steps without prompts, by least squares in which older steps count less and less; the third from
// what steps with prompts took longer. Thread-compatible.
class StepTimeModel {
 public:
  void Observe(uint32_t decode_rows, uint32_t prefill_rows, absl::Duration took);

  // Zero until a step was seen.
  absl::Duration DecodeTime(uint32_t decode_rows) const;
  absl::Duration PrefillTime(uint32_t prefill_rows) const;
  // Prompt tokens that a step with these decode rows may carry to take `target`; at least `least`.
  // Unbounded (UINT32_MAX) until a step with prompts was seen.
  uint32_t PrefillRowsWithin(absl::Duration target, uint32_t decode_rows, uint32_t least) const;

 private:
  // Sums over decode steps, faded: weights, rows, seconds and their products.
  double weight_ = 0;
  double rows_ = 0;
  double seconds_ = 0;
  double rows_squared_ = 0;
  double rows_seconds_ = 0;
  double seconds_per_prefill_row_ = 0;
};

// The time that a step with decoding sequences should take: as asked, or (asked = zero) so that
// prompts may slow the others' tokens down to half their speed and no further.
absl::Duration StepTarget(absl::Duration asked, absl::Duration decode_time);

}  // namespace essor::coordinator
