#include "worker/engine/output_head.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "common/status_macros.h"
#include "kernels/elementwise.h"
#include "kernels/linear.h"

namespace essor::worker {
namespace {

uint32_t Widest(const std::vector<model::Range>& slices) {
  uint64_t widest = 0;
  for (const model::Range& slice : slices) widest = std::max(widest, slice.size());
  return static_cast<uint32_t>(widest);
}

template <typename T>
std::span<const std::byte> BytesOf(const std::vector<T>& values) {
  return std::as_bytes(std::span<const T>(values));
}

}  // namespace

OutputHead::OutputHead(Inputs inputs, Arena& arena)
    : inputs_(std::move(inputs)),
      hidden_size_(inputs_.spec->hidden_size),
      width_(static_cast<uint32_t>(inputs_.layout->vocab.size())),
      widest_slice_(Widest(inputs_.vocab_slices)) {
  normed_ = arena.Take<float>(uint64_t{kRowsAtOnce} * hidden_size_);
  logits_ = arena.Take<float>(uint64_t{kRowsAtOnce} * width_);
  sent_ = arena.Take<float>(uint64_t{kGatheredRowsAtOnce} * widest_slice_);
  gathered_ = arena.Take<float>(inputs_.vocab_slices.size() * kGatheredRowsAtOnce * widest_slice_);
  whole_row_.resize(inputs_.spec->vocab_size);
}

uint64_t OutputHead::MaxExchangeBytes(const std::vector<model::Range>& vocab_slices) {
  return uint64_t{kGatheredRowsAtOnce} * Widest(vocab_slices) * sizeof(float);
}

absl::Status OutputHead::Run(const float* hidden, std::span<const HeadRow> rows,
                             std::span<HeadResult> results) {
  for (size_t first = 0; first < rows.size(); first += kRowsAtOnce) {
    const size_t count = std::min<size_t>(kRowsAtOnce, rows.size() - first);
    const auto some = rows.subspan(first, count);
    const auto answers = results.subspan(first, count);
    ComputeLogits(hidden, some);
    ESSOR_RETURN_IF_ERROR(SampleBest(some, answers));
    ESSOR_RETURN_IF_ERROR(Score(some, answers));
    ESSOR_RETURN_IF_ERROR(GatherWholeRows(some, answers));
  }
  return absl::OkStatus();
}

void OutputHead::ComputeLogits(const float* hidden, std::span<const HeadRow> rows) {
  for (size_t i = 0; i < rows.size(); ++i) {
    std::memcpy(normed_ + i * hidden_size_, hidden + size_t{rows[i].row} * hidden_size_,
                hidden_size_ * sizeof(float));
  }
  const auto num_rows = static_cast<uint32_t>(rows.size());
  kernels::RmsNorm({.x = normed_,
                    .weight = inputs_.weights->final_norm,
                    .y = normed_,
                    .num_rows = num_rows,
                    .width = hidden_size_,
                    .eps = static_cast<float>(inputs_.spec->norm_eps)},
                   *inputs_.stream);
  const kernels::LinearOutput head{
      .weight = inputs_.weights->head, .y = logits_, .y_stride = width_};
  kernels::Linear({.x = normed_,
                   .x_stride = hidden_size_,
                   .num_rows = num_rows,
                   .outputs = {&head, 1},
                   .split_x = true},
                  *inputs_.stream);
}

absl::Status OutputHead::SampleBest(std::span<const HeadRow> rows, std::span<HeadResult> results) {
  const bool any = std::any_of(rows.begin(), rows.end(), [](const HeadRow& row) {
    return row.sample && !row.sampling.Filtered();
  });
  if (!any) return absl::OkStatus();
  std::vector<kernels::RowSampling> sampling;
  sampling.reserve(rows.size());
  for (const HeadRow& row : rows) sampling.push_back(row.sampling);
  std::vector<kernels::Candidate> best(rows.size());
  kernels::LocalBest({.logits = logits_,
                      .num_rows = static_cast<uint32_t>(rows.size()),
                      .width = width_,
                      .first_id = static_cast<uint32_t>(inputs_.layout->vocab.begin),
                      .sampling = sampling.data(),
                      .best = best.data()},
                     *inputs_.stream);
  const size_t num_ranks = inputs_.vocab_slices.size();
  std::vector<kernels::Candidate> all(num_ranks * rows.size());
  ESSOR_RETURN_IF_ERROR(
      inputs_.stage->AllGather(BytesOf(best), std::as_writable_bytes(std::span(all))));
  std::vector<kernels::Candidate> slices(num_ranks);
  for (size_t i = 0; i < rows.size(); ++i) {
    if (!rows[i].sample || rows[i].sampling.Filtered()) continue;
    for (size_t r = 0; r < num_ranks; ++r) slices[r] = all[r * rows.size() + i];
    const kernels::Candidate chosen = kernels::MergeBest(slices);
    results[i].token = std::isfinite(chosen.score) ? chosen.id : kNoToken;
  }
  return absl::OkStatus();
}

absl::Status OutputHead::Score(std::span<const HeadRow> rows, std::span<HeadResult> results) {
  if (std::none_of(rows.begin(), rows.end(), [](const HeadRow& row) { return row.score; })) {
    return absl::OkStatus();
  }
  struct Part {
    kernels::LogSumExpPart sum;
    float target_logit;  // of the rank whose slice has the target, else -infinity
  };
  std::vector<kernels::LogSumExpPart> sums(rows.size());
  kernels::LocalLogSumExp(logits_, static_cast<uint32_t>(rows.size()), width_, sums.data(),
                          *inputs_.stream);
  std::vector<Part> mine(rows.size());
  const model::Range& slice = inputs_.layout->vocab;
  for (size_t i = 0; i < rows.size(); ++i) {
    const bool here = rows[i].target >= slice.begin && rows[i].target < slice.end;
    mine[i] = {sums[i], here ? logits_[i * width_ + (rows[i].target - slice.begin)]
                             : -std::numeric_limits<float>::infinity()};
  }
  const size_t num_ranks = inputs_.vocab_slices.size();
  std::vector<Part> all(num_ranks * rows.size());
  ESSOR_RETURN_IF_ERROR(
      inputs_.stage->AllGather(BytesOf(mine), std::as_writable_bytes(std::span(all))));
  std::vector<kernels::LogSumExpPart> parts(num_ranks);
  for (size_t i = 0; i < rows.size(); ++i) {
    float target = -std::numeric_limits<float>::infinity();
    for (size_t r = 0; r < num_ranks; ++r) {
      parts[r] = all[r * rows.size() + i].sum;
      target = std::max(target, all[r * rows.size() + i].target_logit);
    }
    results[i].logprob = target - kernels::MergeLogSumExp(parts);
  }
  return absl::OkStatus();
}

absl::Status OutputHead::GatherWholeRows(std::span<const HeadRow> rows,
                                         std::span<HeadResult> results) {
  std::vector<uint32_t> wanted;
  for (uint32_t i = 0; i < rows.size(); ++i) {
    if (rows[i].return_logits || (rows[i].sample && rows[i].sampling.Filtered())) {
      wanted.push_back(i);
    }
  }
  for (size_t first = 0; first < wanted.size(); first += kGatheredRowsAtOnce) {
    const auto count =
        static_cast<uint32_t>(std::min<size_t>(kGatheredRowsAtOnce, wanted.size() - first));
    for (uint32_t i = 0; i < count; ++i) {
      std::memcpy(sent_ + size_t{i} * widest_slice_, logits_ + size_t{wanted[first + i]} * width_,
                  width_ * sizeof(float));
    }
    const size_t sent_bytes = size_t{count} * widest_slice_ * sizeof(float);
    ESSOR_RETURN_IF_ERROR(inputs_.stage->AllGather(
        {reinterpret_cast<const std::byte*>(sent_), sent_bytes},
        {reinterpret_cast<std::byte*>(gathered_), sent_bytes * inputs_.vocab_slices.size()}));
    for (uint32_t i = 0; i < count; ++i) {
      const HeadRow& row = rows[wanted[first + i]];
      HeadResult& result = results[wanted[first + i]];
      AssembleRow(i, count, whole_row_);
      if (row.sample && row.sampling.Filtered()) {
        const bool usable = std::any_of(whole_row_.begin(), whole_row_.end(),
                                        [](float logit) { return std::isfinite(logit); });
        result.token = usable ? kernels::SampleFiltered(whole_row_, row.sampling) : kNoToken;
      }
      if (row.return_logits) result.logits = whole_row_;
    }
  }
  return absl::OkStatus();
}

void OutputHead::AssembleRow(uint32_t index, uint32_t num_gathered, std::span<float> row) const {
  for (size_t r = 0; r < inputs_.vocab_slices.size(); ++r) {
    const model::Range& slice = inputs_.vocab_slices[r];
    std::memcpy(row.data() + slice.begin, gathered_ + (r * num_gathered + index) * widest_slice_,
                slice.size() * sizeof(float));
  }
}

}  // namespace essor::worker
