#include "worker/engine/token_chooser.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/status_macros.h"

namespace essor::worker {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

bool IsFiltered(const HeadRow& row) { return row.sample && row.sampling.Filtered(); }

// Whether the first exchange tells something of the row: its token, or the best logit.
bool NeedsBest(const HeadRow& row) {
  return row.sample && (!row.sampling.Filtered() || kernels::NeedsFilterSums(row.sampling));
}

}  // namespace

TokenChooser::TokenChooser(const HeadSlice* slice, WholeRows* whole_rows, uint32_t vocab_size,
                           uint32_t candidates)
    : slice_(*slice), whole_rows_(*whole_rows), candidates_(candidates), scratch_(vocab_size) {}

uint64_t TokenChooser::MaxExchangeBytes(uint32_t max_rows) {
  return max_rows * (sizeof(kernels::FilterSums) + kCandidates * sizeof(kernels::Candidate));
}

absl::Status TokenChooser::Choose(const float* logits, std::span<const HeadRow> rows,
                                  std::span<HeadResult> results) {
  ESSOR_RETURN_IF_ERROR(ChooseBest(logits, rows, results));
  return ChooseFiltered(logits, rows, results);
}

absl::Status TokenChooser::ChooseBest(const float* logits, std::span<const HeadRow> rows,
                                      std::span<HeadResult> results) {
  if (std::none_of(rows.begin(), rows.end(), NeedsBest)) return absl::OkStatus();
  std::vector<kernels::RowSampling> sampling;
  sampling.reserve(rows.size());
  for (const HeadRow& row : rows) {
    sampling.push_back(row.sampling);
    if (IsFiltered(row)) sampling.back().temperature = 0;  // the best logit is wanted
  }
  std::vector<kernels::Candidate> best(rows.size());
  kernels::LocalBest({.logits = logits,
                      .num_rows = static_cast<uint32_t>(rows.size()),
                      .width = slice_.width(),
                      .first_id = slice_.first_id(),
                      .sampling = sampling.data(),
                      .best = best.data()},
                     *slice_.stream);
  std::vector<kernels::Candidate> all;
  ESSOR_RETURN_IF_ERROR(slice_.Gather(best, &all));
  std::vector<kernels::Candidate> slices(slice_.num_ranks());
  best_logits_.resize(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    if (!NeedsBest(rows[i])) continue;
    for (size_t r = 0; r < slices.size(); ++r) slices[r] = all[r * rows.size() + i];
    const kernels::Candidate chosen = kernels::MergeBest(slices);
    best_logits_[i] = chosen.score;
    results[i].token = std::isfinite(chosen.score) ? chosen.id : kNoToken;
  }
  return absl::OkStatus();
}

absl::Status TokenChooser::ChooseFiltered(const float* logits, std::span<const HeadRow> rows,
                                          std::span<HeadResult> results) {
  std::vector<uint32_t> filtered;
  std::vector<uint32_t> whole;
  for (uint32_t i = 0; i < rows.size(); ++i) {
    if (!IsFiltered(rows[i])) continue;
    const bool too_many = rows[i].sampling.top_k > static_cast<int64_t>(candidates_);
    (too_many ? whole : filtered).push_back(i);
  }
  if (!filtered.empty()) {
    ComputeCandidates(logits, rows, filtered);
    ESSOR_RETURN_IF_ERROR(slice_.Gather(sums_, best_, &all_sums_, &all_best_));
    for (size_t index = 0; index < filtered.size(); ++index) {
      const uint32_t i = filtered[index];
      const float best_logit = NeedsBest(rows[i]) ? best_logits_[i] : kInfinity;
      if (!Decide(index, filtered.size(), rows[i], best_logit, &results[i])) whole.push_back(i);
    }
  }
  num_whole_rows_ += whole.size();
  return ChooseFromWholeRows(logits, rows, whole, results);
}

void TokenChooser::ComputeCandidates(const float* logits, std::span<const HeadRow> rows,
                                     std::span<const uint32_t> filtered) {
  sums_.assign(filtered.size(), {});
  best_.assign(filtered.size() * candidates_, {-kInfinity, 0});
  std::vector<kernels::RowTop> tops;
  std::vector<kernels::RowSums> sums;
  for (size_t index = 0; index < filtered.size(); ++index) {
    const kernels::RowSampling& sampling = rows[filtered[index]].sampling;
    // More than top_k are not looked at, whether there are more or not.
    const auto top_k = static_cast<uint32_t>(sampling.top_k);
    tops.push_back({.row = filtered[index],
                    .temperature = sampling.temperature,
                    .count = sampling.top_k > 0 ? std::min(top_k, candidates_) : candidates_,
                    .best = &best_[index * candidates_]});
    if (!kernels::NeedsFilterSums(sampling)) continue;
    const float max = best_logits_[filtered[index]] / sampling.temperature;
    if (!std::isfinite(max)) continue;  // no token will be chosen
    sums.push_back({.row = filtered[index],
                    .temperature = sampling.temperature,
                    .max = max,
                    .spread = sampling.typical_p < 1,
                    .sums = &sums_[index]});
  }
  kernels::LocalTop(
      {.logits = logits, .width = slice_.width(), .first_id = slice_.first_id(), .rows = tops},
      *slice_.stream);
  kernels::LocalFilterSums({.logits = logits, .width = slice_.width(), .rows = sums},
                           *slice_.stream);
}

bool TokenChooser::Decide(size_t index, size_t num_filtered, const HeadRow& row, float best_logit,
                          HeadResult* result) {
  kernels::FilterRow known{.all = true};
  merged_.clear();
  for (size_t r = 0; r < slice_.num_ranks(); ++r) {
    const kernels::FilterSums& sums = all_sums_[r * num_filtered + index];
    known.sums.mass += sums.mass;
    known.sums.spread += sums.spread;
    const auto begin = all_best_.begin() + (r * num_filtered + index) * candidates_;
    merged_.insert(merged_.end(), begin, begin + candidates_);
    // A slice that sent all it has room for may have more.
    const bool full = (begin + (candidates_ - 1))->score > -kInfinity;
    if (full && slice_.vocab_slices[r].size() > candidates_) known.all = false;
  }
  const size_t count = kernels::MergeTop(merged_, known.all ? merged_.size() : candidates_);
  known.best = std::span(merged_).first(count);
  known.max = kernels::NeedsFilterSums(row.sampling) ? best_logit / row.sampling.temperature
              : count > 0                            ? merged_[0].score
                                                     : -kInfinity;
  if (!std::isfinite(known.max)) {
    result->token = kNoToken;
    return true;
  }
  const std::optional<uint32_t> token = kernels::DrawFiltered(known, row.sampling);
  if (token.has_value()) result->token = *token;
  return token.has_value();
}

absl::Status TokenChooser::ChooseFromWholeRows(const float* logits, std::span<const HeadRow> rows,
                                               std::span<const uint32_t> wanted,
                                               std::span<HeadResult> results) {
  return whole_rows_.Gather(logits, wanted, [&](uint32_t i, std::span<const float> row) {
    float best = -kInfinity;
    for (const float logit : row) best = logit > best ? logit : best;
    const bool finite = std::isfinite(best / rows[i].sampling.temperature);
    results[i].token = finite ? kernels::SampleFiltered(row, rows[i].sampling, scratch_) : kNoToken;
  });
}

}  // namespace essor::worker
