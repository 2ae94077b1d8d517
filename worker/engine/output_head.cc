#include "worker/engine/output_head.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/status_macros.h"
#include "kernels/elementwise.h"
#include "kernels/linear.h"

namespace essor::worker {

OutputHead::OutputHead(Inputs inputs, Arena& arena)
    : inputs_(std::move(inputs)),
      slice_{.vocab = inputs_.layout->vocab,
             .vocab_slices = inputs_.vocab_slices,
             .stage = inputs_.stage,
             .stream = inputs_.stream},
      hidden_size_(inputs_.spec->hidden_size),
      whole_rows_(&slice_, inputs_.spec->vocab_size, arena),
      chooser_(&slice_, &whole_rows_, inputs_.spec->vocab_size),
      report_(&slice_) {
  normed_ = arena.Take<float>(uint64_t{kRowsAtOnce} * hidden_size_);
  logits_ = arena.Take<float>(uint64_t{kRowsAtOnce} * slice_.width());
}

uint64_t OutputHead::MaxExchangeBytes(const std::vector<model::Range>& vocab_slices) {
  return std::max({WholeRows::MaxExchangeBytes(vocab_slices),
                   TokenChooser::MaxExchangeBytes(kRowsAtOnce),
                   LogprobReport::MaxExchangeBytes(kRowsAtOnce)});
}

absl::Status OutputHead::Run(const float* hidden, std::span<const HeadRow> rows,
                             std::span<HeadResult> results) {
  for (size_t first = 0; first < rows.size(); first += kRowsAtOnce) {
    const size_t count = std::min<size_t>(kRowsAtOnce, rows.size() - first);
    const auto some = rows.subspan(first, count);
    const auto answers = results.subspan(first, count);
    ComputeLogits(hidden, some);
    report_.Prepare(logits_, some);
    ESSOR_RETURN_IF_ERROR(ReturnLogits(some, answers));
    Adjust(some);  // whoever wants the model's own logits has seen them
    ESSOR_RETURN_IF_ERROR(chooser_.Choose(logits_, some, answers));
    ESSOR_RETURN_IF_ERROR(report_.Finish(logits_, some, answers));
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
      .weight = inputs_.weights->head, .y = logits_, .y_stride = slice_.width()};
  kernels::Linear({.x = normed_,
                   .x_stride = hidden_size_,
                   .num_rows = num_rows,
                   .outputs = {&head, 1},
                   .split_x = true},
                  *inputs_.stream);
}

absl::Status OutputHead::ReturnLogits(std::span<const HeadRow> rows,
                                      std::span<HeadResult> results) {
  std::vector<uint32_t> wanted;
  for (uint32_t i = 0; i < rows.size(); ++i) {
    if (rows[i].return_logits) wanted.push_back(i);
  }
  return whole_rows_.Gather(logits_, wanted, [&](uint32_t i, std::span<const float> row) {
    results[i].logits.assign(row.begin(), row.end());
  });
}

void OutputHead::Adjust(std::span<const HeadRow> rows) {
  std::vector<kernels::RowAdjustment> adjustments;
  for (uint32_t i = 0; i < rows.size(); ++i) {
    if (!rows[i].adjustment.has_value()) continue;
    adjustments.push_back(*rows[i].adjustment);
    adjustments.back().row = i;
  }
  kernels::AdjustLogits({.logits = logits_, .width = slice_.width(), .rows = adjustments},
                        *inputs_.stream);
}

}  // namespace essor::worker
