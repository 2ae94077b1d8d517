#include "worker/engine/logprob_report.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "worker/engine/token_history.h"

namespace essor::worker {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The columns that an adjustment changes, as they are now.
std::vector<std::pair<uint32_t, float>> OriginalsOf(const float* row,
                                                    const kernels::RowAdjustment& adjustment) {
  std::vector<std::pair<uint32_t, float>> originals;
  for (const uint32_t column : adjustment.marked) originals.emplace_back(column, row[column]);
  for (const auto& bias : adjustment.biases) originals.emplace_back(bias.first, row[bias.first]);
  for (const uint32_t column : adjustment.blocked) originals.emplace_back(column, row[column]);
  return originals;
}

}  // namespace

uint64_t LogprobReport::MaxExchangeBytes(uint32_t max_rows) {
  // A row may be scored and sampled from.
  return uint64_t{2} * max_rows *
         (sizeof(Part) + TokenHistory::kMaxLogprobs * sizeof(kernels::Candidate));
}

void LogprobReport::AddEntries(std::span<const HeadRow> rows) {
  entries_.clear();
  widest_top_ = 0;
  for (uint32_t i = 0; i < rows.size(); ++i) {
    const HeadRow& row = rows[i];
    if (row.score) entries_.push_back({i, true, row.score_top, {}, {}});
    if (row.sample && row.logprobs.has_value()) {
      entries_.push_back({i, false, *row.logprobs, {}, {}});
    }
  }
  for (const Entry& entry : entries_) widest_top_ = std::max(widest_top_, entry.top);
}

void LogprobReport::Prepare(const float* logits, std::span<const HeadRow> rows) {
  AddEntries(rows);
  if (entries_.empty()) return;
  const uint32_t first = entries_.front().row;
  const uint32_t count = entries_.back().row + 1 - first;
  std::vector<kernels::LogSumExpPart> sums(count);
  kernels::LocalLogSumExp(logits + size_t{first} * slice_.width(), count, slice_.width(),
                          sums.data(), *slice_.stream);
  for (Entry& entry : entries_) {
    entry.sum = sums[entry.row - first];
    const auto& adjustment = rows[entry.row].adjustment;
    if (!adjustment.has_value()) continue;
    entry.originals = OriginalsOf(logits + size_t{entry.row} * slice_.width(), *adjustment);
  }
  ComputeTops(logits);
}

void LogprobReport::ComputeTops(const float* logits) {
  tops_.assign(entries_.size() * widest_top_, {-kInfinity, 0});
  std::vector<kernels::RowTop> rows;
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (entries_[i].top == 0) continue;
    rows.push_back(
        {.row = entries_[i].row, .count = entries_[i].top, .best = &tops_[i * widest_top_]});
  }
  kernels::LocalTop(
      {.logits = logits, .width = slice_.width(), .first_id = slice_.first_id(), .rows = rows},
      *slice_.stream);
}

float LogprobReport::LogitOf(const float* logits, const Entry& entry, TokenId token) const {
  if (!slice_.Holds(token)) return -kInfinity;
  const uint32_t column = token - slice_.first_id();
  const auto changed = std::find_if(entry.originals.begin(), entry.originals.end(),
                                    [&](const auto& original) { return original.first == column; });
  if (changed != entry.originals.end()) return changed->second;
  return logits[size_t{entry.row} * slice_.width() + column];
}

absl::Status LogprobReport::Finish(const float* logits, std::span<const HeadRow> rows,
                                   std::span<HeadResult> results) {
  if (entries_.empty()) return absl::OkStatus();
  std::vector<Part> mine;
  mine.reserve(entries_.size());
  for (const Entry& entry : entries_) {
    const TokenId token = entry.of_target ? rows[entry.row].target : results[entry.row].token;
    mine.push_back({entry.sum, LogitOf(logits, entry, token)});
  }
  std::vector<Part> parts;
  std::vector<kernels::Candidate> tops;
  ESSOR_RETURN_IF_ERROR(slice_.Gather(mine, tops_, &parts, &tops));
  for (size_t i = 0; i < entries_.size(); ++i) {
    HeadResult& result = results[entries_[i].row];
    TokenLogprob merged = Merge(i, parts, tops);
    if (entries_[i].of_target) {
      result.target = std::move(merged);
      continue;
    }
    result.token_logprob = std::move(merged);
    if (result.token == kNoToken) result.token_logprob.logprob = -kInfinity;
  }
  return absl::OkStatus();
}

TokenLogprob LogprobReport::Merge(size_t index, const std::vector<Part>& parts,
                                  const std::vector<kernels::Candidate>& tops) const {
  const Entry& entry = entries_[index];
  std::vector<kernels::LogSumExpPart> sums;
  std::vector<kernels::Candidate> merged;
  float logit = -kInfinity;
  for (size_t r = 0; r < slice_.num_ranks(); ++r) {
    const Part& part = parts[r * entries_.size() + index];
    sums.push_back(part.sum);
    logit = std::max(logit, part.logit);
    const auto begin = tops.begin() + (r * entries_.size() + index) * widest_top_;
    merged.insert(merged.end(), begin, begin + entry.top);
  }
  const float sum = kernels::MergeLogSumExp(sums);
  TokenLogprob result{.logprob = logit - sum};
  merged.resize(kernels::MergeTop(merged, entry.top));
  for (const kernels::Candidate& candidate : merged) {
    result.top.emplace_back(candidate.id, candidate.score - sum);
  }
  return result;
}

}  // namespace essor::worker
