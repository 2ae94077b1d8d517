#include "coordinator/core/step_time.h"

#include <algorithm>

namespace essor::coordinator {
namespace {

// A step counts half after about 22 more.
constexpr double kFade = 31.0 / 32;
constexpr double kPrefillShare = 1.0 / 8;  // of the newest observation
constexpr double kUnhinderedShare = 2;     // times the decode time that a step may take

}  // namespace

void StepTimeModel::Observe(uint32_t decode_rows, uint32_t prefill_rows, absl::Duration took) {
  const double seconds = absl::ToDoubleSeconds(took);
  if (prefill_rows > 0) {
    const double decode = absl::ToDoubleSeconds(DecodeTime(decode_rows));
    const double each = std::max(seconds - decode, 0.1 * seconds) / prefill_rows;
    const bool first = seconds_per_prefill_row_ == 0;
    seconds_per_prefill_row_ += (first ? 1 : kPrefillShare) * (each - seconds_per_prefill_row_);
    return;
  }
  const double rows = decode_rows;
  weight_ = weight_ * kFade + 1;
  rows_ = rows_ * kFade + rows;
  seconds_ = seconds_ * kFade + seconds;
  rows_squared_ = rows_squared_ * kFade + rows * rows;
  rows_seconds_ = rows_seconds_ * kFade + rows * seconds;
}

absl::Duration StepTimeModel::DecodeTime(uint32_t decode_rows) const {
  if (weight_ == 0 || decode_rows == 0) return absl::ZeroDuration();
  const double mean_rows = rows_ / weight_;
  const double mean_seconds = seconds_ / weight_;
  const double variance = rows_squared_ / weight_ - mean_rows * mean_rows;
  const double covariance = rows_seconds_ / weight_ - mean_rows * mean_seconds;
  // Without different batches to compare, time does not depend on them; more rows never take less.
  const double slope = variance > 0.25 ? std::max(covariance / variance, 0.0) : 0.0;
  const double seconds = mean_seconds + slope * (decode_rows - mean_rows);
  return absl::Seconds(std::max(seconds, 0.1 * mean_seconds));
}

absl::Duration StepTimeModel::PrefillTime(uint32_t prefill_rows) const {
  return absl::Seconds(seconds_per_prefill_row_ * prefill_rows);
}

uint32_t StepTimeModel::PrefillRowsWithin(absl::Duration target, uint32_t decode_rows,
                                          uint32_t least) const {
  if (seconds_per_prefill_row_ == 0) return UINT32_MAX;
  const double left = absl::ToDoubleSeconds(target - DecodeTime(decode_rows));
  const double rows = left / seconds_per_prefill_row_;
  if (rows >= static_cast<double>(UINT32_MAX)) return UINT32_MAX;
  return std::max(least, static_cast<uint32_t>(std::max(rows, 0.0)));
}

absl::Duration StepTarget(absl::Duration asked, absl::Duration decode_time) {
  if (asked > absl::ZeroDuration()) return asked;
  if (decode_time == absl::ZeroDuration()) return absl::InfiniteDuration();
  return decode_time * kUnhinderedShare;
}

}  // namespace essor::coordinator
